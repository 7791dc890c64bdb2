"""Reading a parametrized tensor: a kept value, or a fresh one.

A kept value is used again only while its entry is current. Code that is compiled, and a
region that is checkpointed, read under rules of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
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
from paramdesc.mode import current_mode, is_grad_enabled, is_inference, is_plain
from paramdesc.record import MODES, Clock
from paramdesc.scopes import (
    AUTO,
    AUTO_CACHED,
    TRACED,
    RerunScope,
    Scope,
    active_scopes,
    find_scope,
    rerun,
)

__all__ = ["LAST", "fetch", "keep", "read"]

LAST: list[tuple[Callable[[], Any], Callable[[], Any]]] = [(lambda: None, lambda: None)]
"""The chain that was read last outside of scopes, by any thread, and the memory of its value,
while they live.
"""


def read(chain: Any, evaluate: Callable[..., Any], is_watched: bool = False) -> Any:
    """The value of `chain`: a kept one in a scope that has a current one, else a fresh one.

    `is_watched` says that `read_in_region` is asking.
    """
    if is_dynamo_compiling():
        return read_traced(chain)
    scopes = active_scopes()
    is_auto_cached = AUTO_CACHED in chain.__dict__
    if not (scopes or is_auto_cached) or (Module.__call__ is not CALL and is_symbolic()):
        value = evaluate(chain)
        try:  # noqa: SIM105  # twice as fast as suppress
            LAST[0] = ref(chain), ref(value.untyped_storage())
        except (AttributeError, NotImplementedError, RuntimeError, TypeError):
            pass  # no tensor, or one without memory of its own
        return value
    if scopes and not is_watched and saving_hooks(True) is not None:
        return read_in_region(saving_hooks(True), scopes[0], chain, evaluate)
    for scope in (AUTO, *scopes) if is_auto_cached else scopes:
        entry = scope.entries.get(chain)
        if entry is not None:
            cause = entry.why_stale()
            if cause is None:
                entry.record.hits += 1
                return entry.value
            if scope.lasts and cause.reason in MODES:
                cause = entry.why_stale(True)  # it serves again when the mode is back
            if cause is not None:
                entry.record.drop(cause)
                scope.entries.pop(chain, None)
            entry = None  # the old value must be gone before the new one is made
    return read_afresh(chain, evaluate)


def read_afresh(chain: Any, evaluate: Callable[..., Any]) -> Any:
    """A fresh value, kept where it belongs, if that is anywhere."""
    lasting = find_scope(chain, lasts=True)
    if lasting is not None and may_last(chain):
        with lasting.record_of(chain).lock:  # the others wait, and find it
            entry = lasting.entries.get(chain)
            if entry is not None and entry.why_stale() is None:
                entry.record.hits += 1
                return entry.value
            entry = None
            return evaluate_into(lasting, chain, evaluate)
    owner = find_scope(chain)
    return evaluate(chain) if owner is None else evaluate_into(owner, chain, evaluate)


def may_last(chain: Any) -> bool:
    """Whether a value made now may outlive its scope: in evaluation, without gradients.

    In training mode a map may be random, or have a state that moves on.
    """
    if not chain.training and not is_grad_enabled():
        needs_gradient = False
    elif chain.training:
        return False
    else:
        needs_gradient = any(x.requires_grad for x in (*chain.parameters(), *chain.buffers()))
    return not needs_gradient and is_plain() and not any(x.training for x in chain.modules())


def read_in_region(hooks: Any, outermost: Scope, chain: Any, evaluate: Callable[..., Any]) -> Any:
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

    def evaluate_watched(chain: Any, clock: Clock | None = None) -> Any:
        owner = find_scope(chain)
        # the graph behind a leaf is no part of the region, which ends with its backward pass
        is_apart = owner is not None and owner.deferral is not None
        with unsaved() if is_apart else nullcontext():
            evaluated.append(evaluate(chain, clock))
        return evaluated[-1]

    value = read(chain, evaluate_watched, is_watched=True)
    region.add(chain, value, is_fresh=any(value is fresh for fresh in evaluated))
    return value


def unsaved() -> saved_tensors_hooks:
    """Inside, the hooks for saved tensors that are set outside have no part in what is saved."""
    return saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


def evaluate_into(scope: Scope, chain: Any, evaluate: Callable[..., Any]) -> Any:
    """A fresh value of `chain`, kept in `scope` if it can be told from others."""
    record = scope.record_of(chain)
    record.misses += 1
    replaced = scope.entries.pop(chain, None)
    if replaced is not None:
        record.drop(replaced.why_stale())
        replaced = None
    mode, originals = current_mode(), watch_originals(chain)
    value = evaluate(chain, Clock(record.seconds))
    if not isinstance(value, Tensor):  # an unsafe map may return anything
        return value
    needs_gradient = value.requires_grad
    if scope.lasts and needs_gradient:  # from a tensor that is not the chain's own
        return value
    deferral = scope.deferral if needs_gradient else None
    if deferral is None:
        entry = Entry(chain, value, mode, originals, record)
        if entry.may_be_kept():
            scope.entries[chain] = entry
        return value
    leaf, collector = deferral.leaf_of(value, record.name)
    entry = Entry(chain, leaf, mode, originals, record)
    if not entry.may_be_kept():
        return value
    deferral.add(value, entry, collector)
    scope.entries[chain] = entry
    return leaf


def keep(chain: Any, evaluate: Callable[..., Any]) -> Any:
    """What an active scope keeps of `chain`, evaluated now if need be, or None.

    The guards of compiled code ask this before each call. They must not raise: what a map
    raises, it raises again when the compiled code evaluates it.
    """
    if is_inference():  # torch.compile traces without it: there, no tensor is an inference tensor
        with torch.inference_mode(False), torch.no_grad():
            return keep(chain, evaluate)
    lasting = find_scope(chain, lasts=True)
    scope = lasting if lasting is not None and may_last(chain) else find_scope(chain)
    if scope is None or chain in scope.refused or not is_plain() or saving_hooks(True):
        return None
    with scope.record_of(chain).lock:
        entry = scope.entries.get(chain)
        if entry is not None and entry.why_stale() is None:
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


def fetch(chain: Any, evaluate: Callable[..., Any]) -> Any:
    """`read` for compiled code whose guards have let `keep` evaluate."""
    if is_inference():
        with torch.inference_mode(False), torch.no_grad():
            return fetch(chain, evaluate)
    for scope in (AUTO, *active_scopes()):
        if chain in scope.ahead:
            scope.ahead.discard(chain)
            entry = scope.entries.get(chain)
            if entry is not None and entry.why_stale() is None:
                return entry.value  # counted as a miss when it was evaluated
            entry = None
    return read(chain, evaluate)


def read_traced(chain: Any) -> Any:
    """`read` in compiled code: the value that a scope of eager code keeps, or one evaluation in the
    graph for each scope opened there, and one more after each change that the trace can see.
    """
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
