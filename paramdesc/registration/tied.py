"""Detects tensors that several modules share, which registration must not overwrite.

A module does not know which other modules hold its tensors, so the garbage collector is asked for
references to them. That takes tens of milliseconds in a large process. It is done only if there are
references other than that of the module, and registration would write different numbers.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.errors import TiedParameterError
from paramdesc.registration.namespace import AttributeNamespace
from paramdesc.registration.references import ALONE, count_references
from paramdesc.torch_internals.mode import has_numbers

__all__ = [
    "has_other_holders",
    "is_held_elsewhere",
    "known_to_be_free",
    "modules_with",
    "refuse_overwriting",
    "warn_of_untying",
]


_FREE: ContextVar[frozenset[int]] = ContextVar("_FREE", default=frozenset())
"""The identities of tensors that no unknown module holds, while a whole model is parametrized."""


@contextmanager
def known_to_be_free(identities: Iterable[int]) -> Iterator[None]:
    """In this block, take it as known that no unknown module holds these tensors."""
    token = _FREE.set(frozenset(identities))
    try:
        yield
    finally:
        _FREE.reset(token)


def has_other_holders(module: Module, tensor_name: str) -> bool:
    """Whether anything but `module` refers to the tensor: an optimizer, a variable, a module.

    Must be called while no local variable of paramdesc refers to the tensor.
    """
    free = _FREE.get()
    if free and id(module._parameters.get(tensor_name)) in free:
        return False
    return count_references(module.__dict__, tensor_name) > ALONE


def is_held_elsewhere(module: Module, tensor_name: str) -> bool:
    """Whether another module holds the tensor as well."""
    if count_references(module.__dict__, tensor_name) <= ALONE:
        return False
    tensor = module._parameters.get(tensor_name)
    return tensor is not None and bool(find_holder(module, tensor_name, tensor))


def refuse_overwriting(module: Module, tensor_name: str, tensor: Tensor, new: Tensor) -> None:
    """Refuse to overwrite `tensor` of `module` with `new`, if another module holds it too.

    Raises:
        TiedParameterError: a ValueError.
    """
    if is_written(tensor, new):
        holder = find_holder(module, tensor_name, tensor)
        if holder:
            raise TiedParameterError(module, tensor_name, holder)


def warn_of_untying(module: Module, tensor_name: str, tensor: Tensor) -> None:
    """Warn if another module holds `tensor`, which `module` will replace by several originals."""
    holder = find_holder(module, tensor_name, tensor)
    if holder:
        warnings.warn(
            f"{tensor_name!r} of {type(module).__name__} was the same tensor as {holder}. The "
            "parametrization has its own originals, so from now on the two are trained "
            "separately. To keep them tied, call "
            "paramdesc.transfer_parametrizations_and_params(module, other), which shares the "
            "originals.",
            stacklevel=4,
        )


def is_written(tensor: Tensor, new: Tensor) -> bool:
    if not has_numbers(tensor) or not has_numbers(new):
        return False
    return tensor.shape != new.shape or not torch.equal(tensor.detach(), new.detach())


def find_holder(module: Module, tensor_name: str, tensor: Tensor) -> str:
    """Where else `tensor` is held, as a name and a class. Empty if nowhere."""
    own: list[dict[str, Any]] = [module._parameters, dict(module._buffers.items())]
    for name, x in [item for holder in own for item in holder.items()]:
        if x is tensor and name != tensor_name:
            return f"{name!r} of the same module"
    if next(holders_of(tensor, module), None) is None:
        return ""
    gc.collect()  # garbage that is not freed yet must not count
    return next(holders_of(tensor, module), "")


def holders_of(tensor: Tensor, besides: Module) -> Iterator[str]:
    """The modules that hold `tensor`, each with its name there."""
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
                # other dicts of this form are copies of the state of a module, as in a snapshot
                for module in filter(is_module, [owner, *gc.get_referrers(state)]):
                    if vars(module) is state:
                        yield from names_in(state[kind], tensor, type(module).__name__)


def modules_with(tensors: Sequence[Tensor]) -> dict[int, list[Any]]:
    """The modules that hold each of `tensors` as a Parameter, by the identity of the tensor.

    For many tensors, since it looks at each object once.
    """
    found: dict[int, list[Any]] = {id(x): [] for x in tensors}
    for module in filter(is_module, gc.get_objects()):
        for x in list(vars(module).get("_parameters", {}).values()):
            if id(x) in found:
                found[id(x)].append(module)
    return found


def is_module(x: object) -> bool:
    return issubclass(type(x), Module)  # not isinstance, which would trigger proxies


def names_in(holder: dict[str, Any], tensor: Tensor, owner: str) -> Iterator[str]:
    yield from (f"{name!r} of {owner}" for name, x in list(holder.items()) if x is tensor)
