"""Reading a parametrized tensor: a kept value, or a fresh one.

A kept value is used again only while its entry is current. Code that is compiled, and a
region that is checkpointed, read under rules of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.checkpointing import is_rerun, region_of, saving_hooks
from paramdesc.dynamo import (
    fetch_kept,
    is_dynamo_compiling,
    mark_of,
    mode_in_trace,
    plain_attributes,
)
from paramdesc.entry import Entry, watch_originals
from paramdesc.evaluation import CALL, evaluate_traced, is_symbolic
from paramdesc.mode import current_mode, is_inference, is_plain
from paramdesc.scopes import TRACED, RerunScope, Scope, active_scopes, find_scope, rerun

__all__ = ["LAST", "fetch", "keep", "read"]

LAST: list[tuple[Callable[[], Any], Callable[[], Any]]] = [(lambda: None, lambda: None)]
"""The chain that was read last outside of scopes, by any thread, and the memory of its value,
while they live.
"""


def read(chain: Any, evaluate: Callable[[Any], Any], is_watched: bool = False) -> Any:
    """The value of `chain`: a kept one in a scope that has a current one, else a fresh one.

    `is_watched` says that `read_in_region` is asking.
    """
    if is_dynamo_compiling():
        return read_traced(chain)
    scopes = active_scopes()
    if not scopes or (Module.__call__ is not CALL and is_symbolic()):
        value = evaluate(chain)
        try:  # noqa: SIM105  # twice as fast as suppress
            LAST[0] = ref(chain), ref(value.untyped_storage())
        except (AttributeError, NotImplementedError, RuntimeError, TypeError):
            pass  # no tensor, or one without memory of its own
        return value
    if not is_watched and saving_hooks(True) is not None:
        return read_in_region(saving_hooks(True), scopes[0], chain, evaluate)
    for scope in scopes:
        entry = scope.entries.get(chain)
        if entry is not None:
            if entry.is_current():
                scope.hits += 1
                return entry.value
            entry = None  # the old value must be gone before the new one is made
            break
    owner = find_scope(chain)
    return evaluate(chain) if owner is None else evaluate_into(owner, chain, evaluate)


def read_in_region(hooks: Any, outermost: Scope, chain: Any, evaluate: Callable[[Any], Any]) -> Any:
    """`read` where these hooks for saved tensors are set, by a checkpointed region mostly."""
    if isinstance(outermost, RerunScope):
        # a region in a region is not remembered: nothing that it saves now is ever asked for
        return outermost.rerun.read(chain, evaluate) if is_rerun(hooks) else evaluate(chain)
    if is_rerun(hooks):
        return evaluate(chain)  # no scope was open the first time
    region = region_of(hooks, rerun)
    if region is None:
        return read(chain, evaluate, is_watched=True)
    evaluated: list[Any] = []

    def evaluate_watched(chain: Any) -> Any:
        evaluated.append(chain)
        return evaluate(chain)

    value = read(chain, evaluate_watched, is_watched=True)
    region.add(chain, value, is_fresh=bool(evaluated))
    return value


def evaluate_into(scope: Scope, chain: Any, evaluate: Callable[[Any], Any]) -> Any:
    """A fresh value of `chain`, kept in `scope` if it can be told from others."""
    scope.misses += 1
    scope.entries.pop(chain, None)
    mode, originals = current_mode(), watch_originals(chain)
    value = evaluate(chain)
    if isinstance(value, Tensor):  # an unsafe map may return anything
        entry = Entry(chain, value, mode, originals)
        if entry.may_be_kept():
            scope.entries[chain] = entry
    return value


def keep(chain: Any, evaluate: Callable[[Any], Any]) -> Any:
    """What an active scope keeps of `chain`, evaluated now if need be, or None.

    The guards of compiled code ask this before each call. They must not raise: what a map
    raises, it raises again when the compiled code evaluates it.
    """
    if is_inference():  # torch.compile traces without it: there, no tensor is an inference tensor
        with torch.inference_mode(False), torch.no_grad():
            return keep(chain, evaluate)
    scope = find_scope(chain)
    if scope is None or chain in scope.refused or not is_plain() or saving_hooks(True):
        return None
    entry = scope.entries.get(chain)
    if entry is not None and entry.is_current():
        return entry.value
    entry = None
    with suppress(Exception):
        evaluate_into(scope, chain, evaluate)
    entry = scope.entries.get(chain)
    if entry is None:
        scope.refused.add(chain)
        return None
    scope.ahead.add(chain)
    return entry.value


def fetch(chain: Any, evaluate: Callable[[Any], Any]) -> Any:
    """`read` for compiled code whose guards have let `keep` evaluate."""
    if is_inference():
        with torch.inference_mode(False), torch.no_grad():
            return fetch(chain, evaluate)
    scope = find_scope(chain)
    if scope is not None and chain in scope.ahead:
        scope.ahead.discard(chain)
        entry = scope.entries.get(chain)
        if entry is not None and entry.is_current():
            return entry.value  # counted as a miss when it was evaluated
        entry = None
    return read(chain, evaluate)


def read_traced(chain: Any) -> Any:
    """`read` in compiled code: the value that a scope of eager code keeps, or one evaluation in the
    graph for each scope opened there, and one more after each change that the trace can see.
    """
    if TRACED.opened.any:
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


def circumstances(chain: Any, value: Any) -> tuple[list[Any], list[Any]]:
    """What a value depends on: constants of the trace, and the modules of the chain."""
    tensors, modules = [*chain.parameters(), *chain.buffers()], list(chain.modules())
    if isinstance(value, Tensor):
        tensors.append(value)  # it may be written to, too
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
