"""Deferred gradients in `torch.distributed.pipelining`.

A stage divides `.grad` of its parameters by the number of micro-batches when the last of them
is done. The gradients that wait for these parameters reach them right before. A backward pass
that is split into one for inputs and one for parameters knows the parameters of the stage
alone, and would leave the leaves of a scope out: it is refused, before anything is sent.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from paramdesc.caching.early import ask_before
from paramdesc.caching.targets import find_chains
from paramdesc.errors import DeferredGradientError

__all__ = ["watch_pipelines"]

_ROOM = "torch.distributed.pipelining"
_asked: set[str] = set()


def watch_pipelines(deferred: Callable[[], list[Any]]) -> None:
    """From now on, let pipelines ask the scopes that `deferred` returns, if there are any.

    torch's module is large, so it is not imported here.
    """

    def settle_first(what: str, parameters: Iterable[Tensor]) -> None:
        settle(deferred(), parameters)

    def refuse_split(what: str, stages: Iterable[Any]) -> None:
        refuse(deferred(), stages)

    stages, schedules = (sys.modules.get(f"{_ROOM}.{name}") for name in ("stage", "schedules"))
    if stages is not None and "stage" not in _asked:
        _asked.add("stage")
        base = stages._PipelineStageBase
        ask_before(base, "scale_grads", parameters_of, settle_first)
        ask_before(base, "backward_maybe_with_nosync", split_stages, refuse_split)
    if schedules is not None and "schedules" not in _asked:
        _asked.add("schedules")
        base = schedules.PipelineScheduleMulti
        ask_before(base, "step", split_in_schedule, refuse_split)


def parameters_of(stage: Any, *args: Any, **kwargs: Any) -> list[Tensor]:
    return list(stage.submod.parameters())


def split_stages(stage: Any, backward_type: str, *args: Any, **kwargs: Any) -> list[Any]:
    """The stage, if this is one of the two parts of its backward pass."""
    return [] if backward_type == "full" else [stage]


def split_in_schedule(schedule: Any, *args: Any, **kwargs: Any) -> list[Any]:
    """The stages of this process, if any of the backward passes in `schedule` is split."""
    actions = [action for actions in schedule.pipeline_order.values() for action in actions]
    kinds = {action.computation_type.name for action in actions if action is not None}
    return list(schedule._stages) if "BACKWARD_INPUT" in kinds else []


def settle(scopes: Iterable[Any], parameters: Iterable[Tensor]) -> None:
    """Let what waits in `scopes` for `parameters` reach them."""
    parameters = list(parameters)
    for scope in scopes:
        scope.deferral.backward(parameters=parameters)


def refuse(scopes: list[Any], stages: Iterable[Any]) -> None:
    """Stop if `scopes` hand out leaves in `stages`."""
    for stage in stages if scopes else ():
        for name, chain in find_chains(stage.submod, set()):
            if any(scope.covers(chain) for scope in scopes):
                raise DeferredGradientError.split(name)
