"""Evaluating a chain of maps. Every read without a cached value runs this code."""

from __future__ import annotations

import threading
from typing import Any

from torch.nn import Module, Parameter

from paramdesc.chain.clock import Clock
from paramdesc.chain.explain import explain
from paramdesc.chain.shards import are_sharded
from paramdesc.chain.steps import has_stepped, mark_due
from paramdesc.torch_internals.dynamo import answered_by_tracer
from paramdesc.torch_internals.module_call import (
    CALL,
    HOOKS,
    IMPLEMENTATION,
    backward_hooks,
    backward_pre_hooks,
    call_as_leaf,
    forward_hooks,
    forward_pre_hooks,
    is_symbolic,
)

__all__ = ["evaluate", "evaluate_traced", "take_clock"]


class Handed(threading.local):
    """The clock for the next call of a chain. Not an argument, since hooks see those."""

    clock: Clock | None = None


_HANDED = Handed()


def take_clock() -> Clock | None:
    """The clock that `call_timed` has left for this call of a chain, if any."""
    clock, _HANDED.clock = _HANDED.clock, None
    return clock


def call_timed(chain: Module, clock: Clock) -> Any:
    _HANDED.clock = clock
    try:
        return chain()
    finally:
        _HANDED.clock = None


def evaluate(chain: Any, clock: Clock | None = None) -> Any:
    """A fresh value of `chain`: the result of `chain()`, at a fraction of the cost.

    Calling a module takes nine times as long as an empty `forward`. So modules are called only
    where a call does more than run `forward`: with hooks, with a `forward` set on the chain, where
    the call was compiled or replaced, and under torch.fx. `clock` measures each map.
    """
    state = chain.__dict__
    parameters = state["_parameters"]
    value = parameters.get("original")
    if (
        # several originals, some of them buffers or parametrized themselves
        (value is None and len(parameters) != state["ntensors"])
        or (type(value) is not Parameter and are_sharded(parameters.values()))
        or Module.__call__ is not CALL
        or "forward" in state  # set by offloading, to fetch the originals
        or "_call_impl" in state
        or "_compiled_call_impl" in state
        or not type(chain).is_applied_plainly
        or state["_forward_hooks"]
        or state["_forward_pre_hooks"]
        or state["_backward_hooks"]
        or state["_backward_pre_hooks"]
        or forward_hooks
        or forward_pre_hooks
        or backward_hooks
        or backward_pre_hooks
    ):
        if clock is not None:
            return call_timed(chain, clock)
        return call_as_leaf(chain) if is_symbolic() else chain()
    if "_steps" in state and state["training"] and has_stepped(chain):
        mark_due(chain)
    maps = iter((*state["_modules"].values(),))  # a copy: another thread may add a map
    place = 0
    parametrization: Any = None
    try:
        if value is None:
            parametrization = next(maps)
            value = parametrization(*parameters.values())
            if clock is not None:
                clock.lap(place, parametrization)
                place = 1
        for parametrization in maps:
            own = parametrization.__dict__
            if (
                own["_forward_hooks"]
                or own["_forward_pre_hooks"]
                or own["_backward_hooks"]
                or own["_backward_pre_hooks"]
                or "_compiled_call_impl" in own
                or "_call_impl" in own
                or type(parametrization).__call__ is not CALL
                or type(parametrization)._call_impl is not IMPLEMENTATION
            ):
                value = parametrization(value)
            else:
                value = parametrization.forward(value)
            if clock is not None:
                clock.lap(place, parametrization)
                place += 1
    except Exception as error:
        explain(error, chain, "evaluating", parametrization)
        raise
    return value


@answered_by_tracer
def is_applied_only(chain: Any) -> bool:
    """Whether to evaluate `chain` means to apply the `forward` of each map, and nothing else.

    Hooks that are added later are not noticed, as when torch itself traces modules.
    """
    modules = [chain, *chain._modules.values()]
    return (
        "original" in chain._parameters
        and not are_sharded(chain._parameters.values())
        and type(chain).is_applied_plainly
        and vars(chain).keys().isdisjoint(("_steps", "forward"))
        and not any(map(does_more_when_called, modules))
        and not (forward_hooks or forward_pre_hooks)
        and not (backward_hooks or backward_pre_hooks)
    )


def does_more_when_called(module: Any) -> bool:
    state = vars(module)
    return (
        any(state[name] for name in HOOKS)
        or "_compiled_call_impl" in state
        or "_call_impl" in state
        or type(module).__call__ is not CALL
        or type(module)._call_impl is not IMPLEMENTATION
    )


def evaluate_traced(chain: Module) -> Any:
    """`evaluate` in compiled code, where every check adds to the compile time."""
    if not is_applied_only(chain):
        return evaluate(chain)
    state = chain.__dict__
    value = state["_parameters"]["original"]
    for parametrization in state["_modules"].values():
        value = parametrization.forward(value)
    return value
