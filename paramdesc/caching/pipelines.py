"""Deferred gradients in `torch.distributed.pipelining`.

After the last micro-batch, a stage divides `.grad` of its parameters by the number of
micro-batches. Right before that, the deferred gradients are sent to these parameters. Schedules
that split the backward pass into one for inputs and one for parameters are refused before anything
is sent: the second pass knows only the parameters of the stage, and would miss the leaves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor

from paramdesc.caching.targets import find_chains
from paramdesc.errors import DeferredGradientError
from paramdesc.torch_internals.functions import stand_in_for

__all__ = ["watch_pipelines"]

_ROOM = "torch.distributed.pipelining"

Deferred = Callable[[], list[Any]]
"""Returns the open scopes of the calling thread or task that defer gradients."""


def watch_pipelines(deferred: Deferred) -> None:
    """From now on, let pipelines check the scopes that `deferred` returns.

    Does nothing until the program has imported torch's module, which is large.
    """

    stages, schedules = (sys.modules.get(f"{_ROOM}.{name}") for name in ("stage", "schedules"))
    if stages is not None:
        base = stages._PipelineStageBase
        stand_in_for(base.scale_grads, partial(settle_first, deferred))
        stand_in_for(base.backward_maybe_with_nosync, partial(refuse_split, deferred, split_stages))
    if schedules is not None:
        base = schedules.PipelineScheduleMulti
        stand_in_for(base.step, partial(refuse_split, deferred, split_in_schedule))


def settle_first(deferred: Deferred, own: Any, stage: Any, *args: Any, **kwargs: Any) -> Any:
    settle(deferred(), parameters_of(stage))
    return NotImplemented


def refuse_split(
    deferred: Deferred, split: Callable[..., list[Any]], own: Any, *args: Any, **kwargs: Any
) -> Any:
    refuse(deferred(), split(*args, **kwargs))
    return NotImplemented


def parameters_of(stage: Any) -> list[Tensor]:
    return list(stage.submod.parameters())


def split_stages(stage: Any, backward_type: str, *args: Any, **kwargs: Any) -> list[Any]:
    """The stage, if `backward_type` is one part of a split backward pass."""
    return [] if backward_type == "full" else [stage]


def split_in_schedule(schedule: Any, *args: Any, **kwargs: Any) -> list[Any]:
    """The stages of this process, if any of the backward passes in `schedule` is split."""
    actions = [action for actions in schedule.pipeline_order.values() for action in actions]
    kinds = {action.computation_type.name for action in actions if action is not None}
    return list(schedule._stages) if "BACKWARD_INPUT" in kinds else []


def settle(scopes: Iterable[Any], parameters: Iterable[Tensor]) -> None:
    """Send the deferred gradients of `parameters` to them, from all `scopes`."""
    parameters = list(parameters)
    for scope in scopes:
        scope.deferral.backward(parameters=parameters)


def refuse(scopes: list[Any], stages: Iterable[Any]) -> None:
    """Raise if one of `scopes` covers a tensor in `stages`."""
    for stage in stages if scopes else ():
        for name, chain in find_chains(stage.submod, set()):
            if any(scope.covers(chain) for scope in scopes):
                raise DeferredGradientError.split(name)
