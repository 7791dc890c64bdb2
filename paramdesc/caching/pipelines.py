"""Scopes around `torch.distributed.pipelining`.

A schedule runs the backward passes of its micro-batches one by one, after it has run the forward
passes of several. All would end in the graph of one kept value, which the first of them frees. So
for the time of a schedule, ordinary scopes defer the gradients of its stages, too.

After the last micro-batch, a stage divides `.grad` of its parameters by the number of
micro-batches. Right before that, the deferred gradients are sent to these parameters.

Some schedules split the backward pass into one for inputs and one for parameters. The second pass
knows only the parameters of the stage, and would miss the leaves. There, ordinary scopes keep
nothing, and scopes with `deferred=True` are refused before anything is sent.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from paramdesc.caching.deferral import Deferral
from paramdesc.caching.targets import find_chains
from paramdesc.errors import DeferredGradientError
from paramdesc.torch_internals.functions import stand_in_for

__all__ = ["OpenScopes", "watch_pipelines"]

_STAGES = "torch.distributed.pipelining.stage"
_SCHEDULES = "torch.distributed.pipelining.schedules"


class OpenScopes(NamedTuple):
    """Access to the scopes that are open in the calling thread or task."""

    all: Callable[[], tuple[Any, ...]]
    deferred: Callable[[], list[Any]]
    """Those that defer gradients."""
    hidden: Callable[[], AbstractContextManager[None]]
    """A block in which no scope is open."""


_WATCHED: set[str] = set()


def watch_pipelines(scopes: OpenScopes) -> None:
    """From now on, let pipelines look at the open scopes.

    Does nothing until the program has imported torch's module, which is large.
    """
    if _STAGES in sys.modules and _STAGES not in _WATCHED:
        base = sys.modules[_STAGES]._PipelineStageBase
        stand_in_for(base.scale_grads, partial(settle_first, scopes.deferred))
        ask = partial(refuse_split, scopes.deferred, split_stages)
        stand_in_for(base.backward_maybe_with_nosync, ask)
        _WATCHED.add(_STAGES)
    if _SCHEDULES in sys.modules and _SCHEDULES not in _WATCHED:
        schedules: Any = sys.modules[_SCHEDULES]
        stand_in_for(schedules.PipelineScheduleMulti.step, partial(run_several, scopes))
        stand_in_for(schedules.PipelineScheduleSingle.step, partial(run_single, scopes))
        _WATCHED.add(_SCHEDULES)


def run_single(scopes: OpenScopes, own: Any, schedule: Any, *args: Any, **kwargs: Any) -> Any:
    return run(scopes, [schedule._stage], own, schedule, *args, **kwargs)


def run_several(scopes: OpenScopes, own: Any, schedule: Any, *args: Any, **kwargs: Any) -> Any:
    split = split_in_schedule(schedule)
    refuse(scopes.deferred(), split)
    if split and schedule._has_backward and scopes.all():
        with scopes.hidden():
            return own(schedule, *args, **kwargs)
    return run(scopes, schedule._stages, own, schedule, *args, **kwargs)


def run(
    scopes: OpenScopes,
    stages: Iterable[Any],
    own: Any,
    schedule: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Run a schedule. Scopes that cover tensors of its stages defer their gradients."""
    stages = list(stages)
    chains = [chain for stage in stages for _, chain in find_chains(stage.submod, set())]
    covering = [scope for scope in scopes.all() if any(scope.covers(chain) for chain in chains)]
    if not covering or not schedule._has_backward:
        return NotImplemented
    with deferring(covering, chains, is_single=len(stages) == 1):
        return own(schedule, *args, **kwargs)


@contextmanager
def deferring(scopes: list[Any], chains: list[Any], is_single: bool) -> Iterator[None]:
    """For the time of a block, let ordinary `scopes` defer gradients, too.

    The graphs of values of `chains` that are kept already would be freed by the first micro-batch.
    Values of several stages are not evaluated together: they would have one graph, and each stage
    runs its part when it is ready.
    """
    ordinary = [scope for scope in scopes if scope.deferral is None]
    batched = [] if is_single else [scope for scope in scopes if scope.batched]
    try:
        for scope in ordinary:
            for chain in chains:
                scope.drop(chain)
            scope.deferral = Deferral()
        for scope in batched:
            scope.batched = False
        yield
        for scope in ordinary:
            scope.deferral.backward()
    finally:
        for scope in ordinary:
            if scope.deferral is not None:
                scope.deferral.drop()
            scope.deferral = None
        for scope in batched:
            scope.batched = True


def settle_first(
    deferred: Callable[[], list[Any]], own: Any, stage: Any, *args: Any, **kwargs: Any
) -> Any:
    settle(deferred(), parameters_of(stage))
    return NotImplemented


def refuse_split(
    deferred: Callable[[], list[Any]],
    split: Callable[..., list[Any]],
    own: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    refuse(deferred(), split(*args, **kwargs))
    return NotImplemented


def parameters_of(stage: Any) -> list[Tensor]:
    return list(stage.submod.parameters())


def split_stages(stage: Any, backward_type: str, *args: Any, **kwargs: Any) -> list[Any]:
    """The stage, if `backward_type` is one part of a split backward pass."""
    return [] if backward_type == "full" else [stage]


def split_in_schedule(schedule: Any) -> list[Any]:
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
