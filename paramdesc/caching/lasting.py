"""A fresh value that outlives the scope in which it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.caching.entry import Entry, parameters_in, watch_originals, watch_owned
from paramdesc.caching.last_read import remembered
from paramdesc.caching.scopes import Scope
from paramdesc.chain.clock import Clock
from paramdesc.chain.function_map import FunctionMap
from paramdesc.torch_internals.mode import (
    count_function_modes,
    current_mode,
    is_grad_enabled,
    is_plain,
)
from paramdesc.torch_internals.tensors import address

__all__ = ["evaluate_to_last", "may_last"]


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
                scope.entries[chain] = entry
    return remembered(chain, value)
