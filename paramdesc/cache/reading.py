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
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import Module

from paramdesc.cache.entry import Entry, Watch, parameters_in, watch_originals, watch_owned
from paramdesc.cache.record import MODES, Cause, Clock, Reason
from paramdesc.cache.scopes import (
    AUTO,
    TRACED,
    RerunScope,
    Scope,
    active_scopes,
    find_scope,
    rerun,
)
from paramdesc.cache.slots import AUTO_CACHED
from paramdesc.chain.evaluation import CALL, evaluate_traced, is_symbolic
from paramdesc.chain.function_map import FunctionMap
from paramdesc.torch_internals.checkpointing import is_rerun, region_of, saving_hooks
from paramdesc.torch_internals.dynamo import (
    fetch_kept,
    is_dynamo_compiling,
    mark_of,
    mode_in_trace,
    plain_attributes,
)
from paramdesc.torch_internals.mode import (
    Mode,
    count_function_modes,
    current_mode,
    is_grad_enabled,
    is_inference,
    is_plain,
)
from paramdesc.torch_internals.tensors import address

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
    if (not scopes and AUTO_CACHED not in chain.__dict__) or (
        Module.__call__ is not CALL and is_symbolic()
    ):
        return remembered(chain, evaluate(chain))
    if scopes and not is_watched and saving_hooks(True) is not None:
        return read_in_region(saving_hooks(True), scopes[0], chain, evaluate)
    for scope in scopes:
        entry = scope.entries.get(chain)
        if entry is not None:
            cause = entry.why_stale()
            if cause is None:
                entry.record.hits += 1
                return entry.value
            if scope.deferral is not None and serves_without_gradients(entry, cause):
                entry.record.hits += 1
                return entry.value.detach()
            drop_stale(scope, chain, entry, cause)
            entry = None  # the old value must be gone before the new one is made
    return read_afresh(chain, evaluate)


def remembered(chain: Any, value: Any) -> Any:
    """`value`, known as the last one of `chain` that no open scope keeps."""
    try:  # noqa: SIM105  # twice as fast as suppress
        LAST[0] = ref(chain), ref(value.untyped_storage())
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        pass  # no tensor, or one without memory of its own
    return value


def serves_without_gradients(entry: Entry, cause: Cause) -> bool:
    """Whether a leaf is right here but for its gradient: to evaluate anew would end it."""
    if cause.reason is not Reason.GRAD_MODE or not entry.value.requires_grad or is_inference():
        return False
    with torch.enable_grad():
        return entry.why_stale() is None


def drop_stale(scope: Scope, chain: Any, entry: Entry, cause: Cause) -> None:
    """Free a value that cannot be used, unless it serves again when the mode is back."""
    changed: Cause | None = cause
    if scope.lasts and cause.reason in MODES:
        # in a trace or transform nothing can be compared
        changed = None if cause.reason is Reason.OTHER_MODE else entry.why_stale(True)
        if changed is None:
            return
    entry.record.drop(changed)
    scope.entries.pop(chain, None)


def read_afresh(chain: Any, evaluate: Callable[..., Any]) -> Any:
    """A value that no open scope keeps, kept where it belongs, if that is anywhere."""
    if AUTO_CACHED in chain.__dict__:
        entry = AUTO.entries.get(chain)
        if entry is not None:
            cause = entry.why_stale()
            if cause is None:
                entry.record.hits += 1
                LAST[0] = entry.mark or LAST[0]
                return entry.value
            drop_stale(AUTO, chain, entry, cause)
            entry = None
    lasting = find_scope(chain, lasts=True)
    if lasting is not None and may_last(chain):
        with lasting.record_of(chain).lock:  # the others wait, and find it
            entry = lasting.entries.get(chain)
            if entry is not None and entry.why_stale() is None:
                entry.record.hits += 1
                return entry.value
            entry = None
            value = evaluate_to_last(lasting, chain, evaluate)
        if not (isinstance(value, Tensor) and value.requires_grad):
            return remembered(chain, value)
        lasting.record_of(chain).misses -= 1  # it belongs to another scope, if to any
        return keep_in(find_scope(chain), chain, value, current_mode(), watch_originals(chain))
    owner = find_scope(chain)
    if owner is None:
        return remembered(chain, evaluate(chain))
    return evaluate_into(owner, chain, evaluate)


def may_last(chain: Any) -> bool:
    """Whether a value made now may outlive its scope: in evaluation, without gradients.

    In training mode a map may be random, or have a state that moves on. Another process may
    write to shared memory, and a function may use tensors and modules that it does not own.
    """
    if chain.training:
        return False
    tensors = (*chain.parameters(), *chain.buffers())
    return (
        is_plain()
        and not (is_grad_enabled() and any(x.requires_grad for x in tensors))
        and not any(x.is_shared() for x in tensors if x.device.type == "cpu" and address(x))
        and not any(uses_others(module) for module in chain.modules())
        and not any(module.training for module in chain.modules())
        and not count_function_modes()
    )


def uses_others(module: Module) -> bool:
    """Whether it is a function with tensors or modules bound to it: nobody watches these."""
    if not isinstance(module, FunctionMap):
        return False
    function: Any = module.function
    bound = [getattr(function, "__self__", None), *getattr(function, "args", ())]
    bound += getattr(function, "keywords", {}).values()
    bound += (cell.cell_contents for cell in getattr(function, "__closure__", None) or ())
    return any(isinstance(thing, (Tensor, Module)) for thing in bound)


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
    mode, originals = current_mode(), watch_originals(chain)
    value = evaluate(chain, Clock(record.seconds))
    return keep_in(scope, chain, value, mode, originals)


def evaluate_to_last(scope: Scope, chain: Any, evaluate: Callable[..., Any]) -> Any:
    """The same, as it is for all who enter: not in inference mode, and without gradients."""
    scope.entries.pop(chain, None)
    record = scope.record_of(chain)
    record.misses += 1
    gradients = is_grad_enabled()  # leaving inference mode switches them on
    with torch.inference_mode(False), torch.set_grad_enabled(gradients):
        mode, originals = current_mode(), watch_originals(chain, closely=True)
        parameters = parameters_in(watch_owned(chain))
        value = evaluate(chain, Clock(record.seconds))
        if isinstance(value, Tensor) and not value.requires_grad:
            entry = Entry(chain, value, mode, originals, record, lasts=True)
            if entry.may_be_kept() and parameters == parameters_in(watch_owned(chain)):
                with suppress(NotImplementedError, RuntimeError):  # no memory of its own
                    entry.mark = ref(chain), ref(value.untyped_storage())
                scope.entries[chain] = entry
    return value


def keep_in(
    scope: Scope | None, chain: Any, value: Any, mode: Mode, originals: tuple[Watch, ...]
) -> Any:
    """What a reader gets of a fresh value, which `scope` keeps if it can."""
    if scope is None or scope.is_closed or not isinstance(value, Tensor):
        return remembered(chain, value)
    record = scope.record_of(chain)
    deferral = scope.deferral if value.requires_grad and may_be_cut(value) else None
    if deferral is None:
        entry = Entry(chain, value, mode, originals, record)
        if not entry.may_be_kept():
            return remembered(chain, value)
        scope.entries[chain] = entry
        return value
    leaf, collector = deferral.leaf_of(value, record.name)
    entry = Entry(chain, leaf, mode, originals, record)
    if not entry.may_be_kept():
        return remembered(chain, value)
    deferral.add(value, entry, collector)
    scope.entries[chain] = entry
    return leaf


def may_be_cut(value: Tensor) -> bool:
    """Whether only a backward pass looks at the graph of `value`: no transform or trace does."""
    return is_plain() and forward_ad.unpack_dual(value).tangent is None  # type: ignore[no-untyped-call]


def keep(chain: Any, evaluate: Callable[..., Any]) -> Any:
    """What an active scope keeps of `chain`, evaluated now if need be, or None.

    The guards of compiled code ask this before each call. They must not raise: what a map
    raises, it raises again when the compiled code evaluates it.
    """
    if is_inference():  # torch.compile traces without it: there, no tensor is an inference tensor
        with torch.inference_mode(False), torch.no_grad():
            return keep(chain, evaluate)
    lasting = find_scope(chain, lasts=True)
    lasts = lasting is not None and may_last(chain)
    scope = lasting if lasts else find_scope(chain)
    if scope is None or chain in scope.refused or not is_plain() or saving_hooks(True):
        return None
    with scope.record_of(chain).lock:
        entry = scope.entries.get(chain)
        if entry is not None and entry.why_stale() is None:
            return entry.value
        scope.entries.pop(chain, None)
        entry = None
        with suppress(Exception):
            (evaluate_to_last if lasts else evaluate_into)(scope, chain, evaluate)
        entry = scope.entries.get(chain)
        if entry is None:
            if not lasts:
                scope.refuse(chain)
            return None
        scope.announce(chain)
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
