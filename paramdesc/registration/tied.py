"""Tensors that several modules hold, whose data registration must not overwrite unasked.

A module does not know who else holds its tensors, so the references to them are looked up. That
takes tens of milliseconds in a large process, and is done only where there are references besides
the module's own, and registration would write other numbers.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.errors import TiedParameterError
from paramdesc.registration.namespace import AttributeNamespace
from paramdesc.torch_internals.mode import has_numbers

__all__ = ["has_other_holders", "refuse_overwriting", "warn_of_untying"]


def has_other_holders(module: Module, tensor_name: str) -> bool:
    """Whether anybody but `module` refers to its tensor: an optimizer, a variable, a module.

    To be called where no variable of ours refers to it.
    """
    return count_references(module.__dict__, tensor_name) > _ALONE


def count_references(state: dict[str, Any], tensor_name: str) -> int:
    holder = state["_parameters"]
    if holder.get(tensor_name) is None:
        holder = getattr(state["_buffers"], "__wrapped__", state["_buffers"])
    return sys.getrefcount(holder[tensor_name]) if tensor_name in holder else 0


_ALONE = count_references({"_parameters": {"one": object()}, "_buffers": {}}, "one")
"""What the count is for one reference: Python counts those of the caller differently by version."""


def refuse_overwriting(module: Module, tensor_name: str, tensor: Tensor, new: Tensor) -> None:
    """Refuse to give `tensor`, which `module` holds, the numbers of `new` if others hold it, too.

    Raises:
        TiedParameterError: a ValueError.
    """
    if is_written(tensor, new):
        holder = find_holder(module, tensor_name, tensor)
        if holder:
            raise TiedParameterError(module, tensor_name, holder)


def warn_of_untying(module: Module, tensor_name: str, tensor: Tensor) -> None:
    """Warn if others keep `tensor`, in whose place `module` will have several originals."""
    holder = find_holder(module, tensor_name, tensor)
    if holder:
        warnings.warn(
            f"{tensor_name!r} of {type(module).__name__} was the same tensor as {holder}. The "
            "parametrization has originals of its own, so from now on they are trained apart. To "
            "keep them tied, call paramdesc.transfer_parametrizations_and_params(module, other), "
            "which shares the originals.",
            stacklevel=4,
        )


def is_written(tensor: Tensor, new: Tensor) -> bool:
    if not has_numbers(tensor) or not has_numbers(new):
        return False
    return tensor.shape != new.shape or not torch.equal(tensor.detach(), new.detach())


def find_holder(module: Module, tensor_name: str, tensor: Tensor) -> str:
    """Where `tensor` is, but as `module.<tensor_name>`: a name and a class; empty if nowhere."""
    own: list[dict[str, Any]] = [module._parameters, dict(module._buffers.items())]
    for name, x in [item for holder in own for item in holder.items()]:
        if x is tensor and name != tensor_name:
            return f"{name!r} of the same module"
    if next(holders_of(tensor, module), None) is None:
        return ""
    gc.collect()  # what is not in use any more, but not freed yet, is no reason to refuse
    return next(holders_of(tensor, module), "")


def holders_of(tensor: Tensor, besides: Module) -> Iterator[str]:
    """The modules that hold `tensor`, with its name there."""
    buffers: Any = besides._buffers
    own = (besides._parameters, getattr(buffers, "__wrapped__", buffers))
    holding = {
        id(x): x
        for x in gc.get_referrers(tensor)
        if type(x) is dict and not any(x is holder for holder in own)
    }
    for owner in gc.get_referrers(*holding.values()) if holding else ():
        if type(owner) is AttributeNamespace:
            yield from names_in(owner.__wrapped__, tensor, "a parametrized module")
            continue
        state = owner if type(owner) is dict else vars(owner) if is_module(owner) else {}
        for kind in ("_parameters", "_buffers"):
            holder = state.get(kind)
            if id(holder) in holding and "_non_persistent_buffers_set" in state:
                # other dicts of this form are copies of what a module has, a snapshot say
                for module in filter(is_module, [owner, *gc.get_referrers(state)]):
                    if vars(module) is state:
                        yield from names_in(state[kind], tensor, type(module).__name__)


def is_module(x: object) -> bool:
    return issubclass(type(x), Module)  # isinstance would ask proxies what they stand for


def names_in(holder: dict[str, Any], tensor: Tensor, owner: str) -> Iterator[str]:
    yield from (f"{name!r} of {owner}" for name, x in list(holder.items()) if x is tensor)
