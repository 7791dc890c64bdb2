"""`auto_cache`: a model that keeps its values by itself, for its life.

What needs no gradient lasts, in the one scope that is around all others. What needs one is
kept in a scope of each forward pass, which two hooks of the model open and close. The
setting is an attribute of the chains and these hooks: both are copied and pickled with the
model, and no value is.
"""

from __future__ import annotations

import sys
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch.jit import ScriptModule
from torch.nn import Module

from paramdesc.caching.active import active_scopes, end_scope, end_traced, forget, open_scope
from paramdesc.caching.contents import look_again
from paramdesc.caching.left_open import remember_opener
from paramdesc.caching.scopes import Scope
from paramdesc.caching.slots import AUTO_CACHED, IN_SLOTS, AutoCached, Slot
from paramdesc.caching.targets import find_chains
from paramdesc.caching.traced_scopes import TRACED
from paramdesc.chain.chain import Chain
from paramdesc.errors import CacheTargetError
from paramdesc.torch_internals.dynamo import is_dynamo_compiling, run_eagerly

__all__ = ["HOOK", "auto_cache"]

HOOK = "paramdesc"  # no number, as torch's own hooks have: those may be given out again


def auto_cache(model: Module, enabled: bool = True, *, check_contents: bool | None = None) -> Scope:
    """`model` will keep the values of its parametrized tensors by itself; no scope is written.

    In evaluation without gradients, `model.eval()` and `torch.no_grad()` or
    `torch.inference_mode()`, a value is evaluated once, for all threads, and kept until
    something changes that it depends on. With gradients, or in training mode, it is evaluated
    once in each call of `model`, and freed at the end of the call: then only the graph holds
    it, until the backward pass. The rules by which a value is used again are those of `cached`.

    The setting is copied and pickled with the model; values never are. Tensors that are
    parametrized later keep no values until it is called again, which does no harm.

    Args:
        model: the module whose calls are the forward passes, and all parametrizations below it.
        enabled: False takes the setting away from it and all below, and frees the values.
        check_contents: whether values that outlive a call are compared with their tensors again
            at each call of `model`, as `cached` does at each entry.

    Returns:
        A scope that tells of the model: `print(auto_cache(model).report())`.

    Raises:
        TypeError: if `model` is no module, or is a TorchScript program.

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3)).eval()
    >>> _ = register_parametrization(model[0], "weight", Symmetric())
    >>> scope = auto_cache(model)
    >>> with torch.no_grad():
    ...     first, second = model(torch.ones(1, 3)), model(torch.ones(1, 3))
    >>> scope.misses, scope.hits
    (1, 1)
    """
    if isinstance(model, ScriptModule) or not isinstance(model, Module):
        raise CacheTargetError.automatic(model, isinstance(model, ScriptModule))
    found = find_chains(model, set())
    chains = {chain: name for name, chain in found if isinstance(chain, Chain)}
    for chain in chains:
        if enabled:
            chain.__dict__.setdefault(AUTO_CACHED, Slot()).check_contents = check_contents
        else:
            forget(chain)
            chain.__dict__.pop(AUTO_CACHED, None)
    for module in [model] if enabled and chains else model.modules():
        switch_hooks(module, enabled and bool(chains))
    told = Scope(chains, lasts=True, **IN_SLOTS)
    for chain, name in chains.items():
        told.record_of(chain).name = name
    return told


def switch_hooks(module: Any, enabled: bool) -> None:
    """Let the calls of `module` open a scope, or no more."""
    before, after = module._forward_pre_hooks, module._forward_hooks
    if enabled:
        before[HOOK] = enter_forward_pass
        before.move_to_end(HOOK, last=False)
        after[HOOK] = leave_forward_pass
        module._forward_hooks_always_called[HOOK] = True
    elif before.get(HOOK) is enter_forward_pass:
        before.pop(HOOK, None)
        while leave_innermost(module):  # if it is called from inside, nobody else ends these
            pass
        drop_last_hook(module)


def drop_last_hook(module: Any) -> None:
    """Take the hook after the calls away, unless other threads are in a call: it ends theirs."""
    calls = (call() for call in _CALLS.valuerefs())
    if not any(c is not None and c.model == id(module) and not c.is_closed for c in calls):
        for hooks in (module._forward_hooks, module._forward_hooks_always_called):
            hooks.pop(HOOK, None)


class ForwardPass(Scope):
    """The scope of one call of a model."""

    __slots__ = ("__weakref__", "model")
    is_call = True

    def __init__(self, model: Module) -> None:
        super().__init__(AutoCached(), records=IN_SLOTS["records"])
        self.model = id(model)  # it must not keep the model alive


_CALLS: WeakValueDictionary[int, ForwardPass] = WeakValueDictionary()
"""The scopes of calls in all threads, by identity."""


@run_eagerly
def enter_forward_pass(model: Module, args: Any) -> None:
    """The hook before a call. Where values last, no scope is needed."""
    if not is_dynamo_compiling():
        look_again()
    if torch.is_grad_enabled() or model.training:
        scope = ForwardPass(model)
        if is_dynamo_compiling():
            open_scope(scope)
            return
        remember_opener(scope, sys._getframe(1))
        _CALLS[id(scope)] = scope
        try:
            open_scope(scope)
        except BaseException as error:
            end_scope(scope, error=error)
            raise


@run_eagerly
def leave_forward_pass(model: Module, args: Any, output: Any) -> None:
    """The hook after a call, and after an exception in it."""
    if is_dynamo_compiling() or active_scopes():
        leave_innermost(model)
    # switched off meanwhile; torch goes through the hooks after an exception, without an output
    hooks: Any = model._forward_pre_hooks
    if not is_dynamo_compiling() and HOOK not in hooks and output is not None:
        drop_last_hook(model)


def leave_innermost(model: Module) -> bool:
    """End the innermost open call of `model`; whether there was one."""
    is_traced = is_dynamo_compiling()
    for scope in reversed(TRACED.scopes if is_traced else active_scopes()):
        if isinstance(scope, ForwardPass) and scope.model == id(model):
            if is_traced:
                end_traced([scope])
                return True
            try:
                end_scope(scope)
            except BaseException as error:  # an interrupt may come in the middle
                end_scope(scope, error=error)
                raise
            return True
    return False
