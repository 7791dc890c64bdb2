"""Reading a parametrized tensor in compiled code."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from paramdesc.caching.slots import AUTO_CACHED
from paramdesc.caching.switched_off import FRESH, GIVEN, ORIGINAL
from paramdesc.caching.traced_scopes import TRACED
from paramdesc.chain.evaluation import evaluate_traced
from paramdesc.torch_internals.dynamo import (
    ask_how_read,
    fetch_kept,
    fetch_stand_in,
    mark_of,
    mode_in_trace,
    plain_attributes,
)

__all__ = ["read_traced"]


def read_traced(chain: Any) -> Any:
    """`read` in compiled code.

    This is the value that a scope of eager code keeps, if there is one. Otherwise the chain is
    evaluated in the graph: once for each scope that is opened there, and again after each change
    that is visible in the trace.
    """
    if TRACED.opened.disables:
        how = ask_how_read(chain)
        if how:
            return read_stand_in(chain, how)
    if TRACED.opened.any or AUTO_CACHED in chain.__dict__:
        value = fetch_kept(chain)
        if value is not None:
            return value
    for scope in TRACED.scopes:
        if scope.covers(chain):
            kept = scope.traced.get(chain)
            if kept is None or has_changed(chain, *kept):
                value = evaluate_traced(chain)
                kept = scope.traced[chain] = (value, *circumstances(chain, value))
            return kept[0]
    return evaluate_traced(chain)


def read_stand_in(chain: Any, how: str) -> Any:
    """What is read of a chain that eager code has switched off."""
    if how == ORIGINAL:
        return chain.original
    if how == GIVEN:
        return fetch_stand_in(chain)
    if how == FRESH:
        return evaluate_traced(chain)
    values: Any = chain.originals()
    for place in how.split(","):
        values = (chain[int(place)](*values),)
    return values[0]


def circumstances(chain: Any, value: Any) -> tuple[list[Any], list[Any]]:
    """What a value depends on: constants of the trace, and the modules of the chain."""
    tensors, modules = [*chain.parameters(), *chain.buffers()], list(chain.modules())
    if isinstance(value, Tensor):
        tensors.append(value)  # the code may write to the value itself
    constants = [mode_in_trace()] + [mark_of(tensor) for tensor in tensors]
    for module in modules:
        constants += plain_attributes(module)
    return constants, modules


def has_changed(chain: Any, value: Any, constants: list[Any], modules: list[Any]) -> bool:
    """Whether a fresh evaluation may give another tensor than `value`."""
    constants_now, modules_now = circumstances(chain, value)
    return (
        constants != constants_now
        or len(modules) != len(modules_now)
        or any(old is not new for old, new in zip(modules, modules_now, strict=True))
    )
