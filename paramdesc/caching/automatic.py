"""`auto_cache`: models that cache the values of their parametrized tensors without a `with` block.

Values that need no gradient are kept in `AUTO`, a scope that surrounds all others. Values that need
a gradient are kept in a scope for each forward pass, which two hooks of the model open and close.
The setting consists of an attribute of the chains and of these hooks. Both are copied and pickled
with the model; values are not.
"""

from __future__ import annotations

import sys
from typing import Any
from weakref import WeakValueDictionary, ref

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
from paramdesc.torch_internals.captures import is_capturing
from paramdesc.torch_internals.dynamo import is_dynamo_compiling, run_eagerly

__all__ = ["HOOK", "auto_cache"]

HOOK = "paramdesc"  # not a number: torch may give the number of a removed hook to another one


def auto_cache(
    model: Module,
    enabled: bool = True,
    *,
    check_contents: bool | None = None,
    batched: bool = False,
) -> Scope:
    """Make `model` cache the values of its parametrized tensors, without `with cached(...)`.

    In evaluation without gradients (`model.eval()` and `torch.no_grad()` or
    `torch.inference_mode()`), a value is evaluated once, for all threads, and kept until something
    that it depends on changes. With gradients or in training mode, it is evaluated once in each
    call of `model` and released at the end of the call; after that, only the graph holds it, until
    the backward pass. Values are reused under the same conditions as in `cached`.

    The setting is copied and pickled with the model; cached values are not. To cover tensors that
    are parametrized later, call `auto_cache` again; repeated calls are harmless.

    Args:
        model: a module whose calls are the forward passes. All parametrizations in it and its
            submodules are cached.
        enabled: False turns caching off for `model` and its submodules, and frees the values.
        check_contents: whether each call of `model` checks that the tensors behind the kept values
            have not changed, as `cached` does at each entry.
        batched: whether tensors with the same kind of parametrization are evaluated together in a
            call of `model`, as in `cached(model, batched=True)`.

    Returns:
        A scope with the statistics of the model: `print(auto_cache(model).report())`.

    Raises:
        TypeError: if `model` is not a module, or is a TorchScript program.

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
        switch_hooks(module, enabled and bool(chains), batched)
    told = Scope(chains, lasts=True, **IN_SLOTS)
    for chain, name in chains.items():
        told.record_of(chain).name = name
    return told


def switch_hooks(module: Any, enabled: bool, batched: bool = False) -> None:
    """Make each call of `module` open a scope, or stop doing so."""
    before, after = module._forward_pre_hooks, module._forward_hooks
    if enabled:
        before[HOOK] = enter_batched_forward_pass if batched else enter_forward_pass
        before.move_to_end(HOOK, last=False)
        after[HOOK] = leave_forward_pass
        module._forward_hooks_always_called[HOOK] = True
    elif before.get(HOOK) in (enter_forward_pass, enter_batched_forward_pass):
        before.pop(HOOK, None)
        while leave_innermost(module):  # inside a call, nothing else would end its scopes
            pass
        drop_last_hook(module)


def drop_last_hook(module: Any) -> None:
    """Remove the hook that runs after calls, unless another thread is in a call that needs it."""
    calls = (call() for call in _CALLS.valuerefs())
    if not any(c is not None and c.model == id(module) and not c.is_closed for c in calls):
        for hooks in (module._forward_hooks, module._forward_hooks_always_called):
            hooks.pop(HOOK, None)


class ForwardPass(Scope):
    """The scope of one call of a model."""

    __slots__ = ("__weakref__", "called", "model")
    is_call = True

    def __init__(self, model: Module, batched: bool = False) -> None:
        super().__init__(AutoCached(), records=IN_SLOTS["records"], batched=batched)
        self.model = id(model)  # a reference would keep the model alive
        self.called = ref(model) if batched else None

    def listed(self) -> list[Any]:
        model = None if self.called is None else self.called()
        found = () if model is None else find_chains(model, set())
        return [chain for _, chain in found if AUTO_CACHED in vars(chain)]


_CALLS: WeakValueDictionary[int, ForwardPass] = WeakValueDictionary()
"""The scopes of calls in all threads, by identity."""


@run_eagerly
def enter_forward_pass(model: Module, args: Any) -> None:
    """The hook before a call. Values that outlive the call need no scope."""
    if not is_dynamo_compiling():
        look_again()
    if torch.is_grad_enabled() or model.training or (not is_dynamo_compiling() and is_capturing()):
        scope = ForwardPass(model)
        if is_dynamo_compiling():
            open_scope(scope)
            return
        open_forward_pass(scope)


@run_eagerly
def enter_batched_forward_pass(model: Module, args: Any) -> None:
    """The hook before a call, with `batched=True`: a scope says what is evaluated together."""
    if is_dynamo_compiling():
        enter_forward_pass(model, args)
        return
    look_again()
    open_forward_pass(ForwardPass(model, batched=True))


def open_forward_pass(scope: ForwardPass) -> None:
    remember_opener(scope, sys._getframe(2))
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
    # switched off during the call. After an exception torch iterates over the hooks, with no output
    hooks: Any = model._forward_pre_hooks
    if not is_dynamo_compiling() and HOOK not in hooks and output is not None:
        drop_last_hook(model)


def leave_innermost(model: Module) -> bool:
    """End the scope of the innermost call of `model`. False if there is none."""
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
