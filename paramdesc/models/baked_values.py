"""The values of the tensors that are baked, and the tensors that will hold them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from paramdesc.models.parametrized_tensors import ParametrizedTensor, own_tensors
from paramdesc.registration.holders import count_modules_with
from paramdesc.registration.sharing import owners_of
from paramdesc.registration.snapshot import differs
from paramdesc.torch_internals.replacing import replace_data
from paramdesc.torch_internals.tensors import is_wrapper, memory_of

__all__ = ["Holders", "Value", "evaluate_all"]


class Holders:
    """How many places hold each tensor: in the model, and as the original of a chain elsewhere."""

    def __init__(self, modules: list[Module], chosen: list[ParametrizedTensor]) -> None:
        self.counts = Counter(id(x) for module in modules for x in own_tensors(module))
        own = set(map(id, modules))
        seen: set[int] = set()
        for tensor in chosen:
            for part in tensor.parts():
                if id(part) in seen:
                    continue
                seen.add(id(part))
                for chain in owners_of(part):
                    if id(chain) not in own:
                        self.counts.update(id(x) for x in chain.own_originals().values())
        for chain in {id(chain): chain for tensor in chosen for chain in tensor.chains()}.values():
            more = count_modules_with(chain) - 1  # besides the one that was counted above
            self.counts.update({id(x): more for x in chain.own_originals().values()})
        self.given_up = Counter(key for tensor in chosen for key in tensor.held_leaves())

    def has_others(self, leaf: Tensor) -> bool:
        """Whether something that is not baked holds `leaf`."""
        return self.counts[id(leaf)] > self.given_up[id(leaf)]


class Value:
    """The value of one tensor. Tied tensors share it."""

    result: Tensor
    is_kept: bool

    def __init__(self, tensor: ParametrizedTensor, value: Tensor, target: Tensor | None) -> None:
        self.tensor = tensor
        self.value = value
        self.target = target
        self.tied_to: Value | None = None

    def plain(self) -> Tensor:
        """The Parameter or buffer with this value, to take the place of the tensor."""
        if self.tied_to is not None:
            self.result, self.is_kept = self.tied_to.result, self.tied_to.is_kept
            return self.result
        self.is_kept = self.target is not None
        if self.target is not None:
            if self.value is not self.target and not same_memory(self.value, self.target):
                self.tensor.keep_old(self.target)
                replace_data(self.target, self.value.detach())
            self.result = self.target
            return self.result
        trained = [x for x in self.tensor.leaves() if isinstance(x, Parameter)]
        needs_gradient = any(x.requires_grad for x in trained)
        if not trained:
            self.result = self.value
        elif self.value.is_floating_point() or self.value.is_complex():
            self.result = Parameter(self.value, needs_gradient)
        else:
            self.result = Parameter(self.value, False)
        return self.result


def evaluate_all(chosen: list[ParametrizedTensor], holders: Holders) -> list[Value]:
    """The values of the tensors, each evaluated once. Nothing of the model is replaced yet."""
    values: list[Value] = []
    by_leaves: dict[tuple[int, ...], list[Value]] = {}
    for tensor in chosen:
        leaves = tensor.leaves()
        key = tuple(tensor.held_leaves())
        ties = by_leaves.setdefault(key, [])
        same = next((x for x in ties if x.tensor.function() == tensor.function()), None)
        if same is not None:  # the same maps: another evaluation may have another value
            found = Value(tensor, same.value, None)
            found.tied_to = same
        else:
            fresh = own_memory(tensor.value().detach(), tensor)
            found = Value(tensor, fresh, None)
            found.tied_to = next((x for x in ties if is_tie(x, found)), None)
            if found.tied_to is None:
                is_free = not ties and not tensor.is_tied
                found.target = target_of(leaves, fresh, holders, is_free)
                ties.append(found)
        values.append(found)
    return values


def is_tie(one: Value, other: Value) -> bool:
    """Whether two functions of the same tensors are the same function, as far as can be told."""
    if one.tensor.settings() != other.tensor.settings() or one.value.dtype != other.value.dtype:
        return False
    return one.value.shape == other.value.shape and not differs(one.value, other.value)


def target_of(
    leaves: list[Tensor], value: Tensor, holders: Holders, is_free: bool
) -> Tensor | None:
    """The original, if it can hold the value.

    It can if it is the only one, of the same kind, and not used elsewhere unless it already equals
    the value.
    """
    if len(leaves) != 1 or not is_free:
        return None
    (leaf,) = leaves
    if leaf.dtype != value.dtype or leaf.device != value.device or leaf.layout != value.layout:
        return None
    if is_wrapper(leaf) is not is_wrapper(value):
        return None
    if leaf.shape == value.shape and same_memory(leaf, value):
        return leaf
    return None if holders.has_others(leaf) else leaf


def own_memory(value: Tensor, tensor: ParametrizedTensor) -> Tensor:
    """`value`, as a dense tensor that shares its memory with nothing but its one original.

    Its strides are those of the original if it has the same shape.
    """
    value = value.resolve_conj().resolve_neg()
    if is_wrapper(value) or value.layout != torch.strided:
        return value
    leaves = tensor.leaves()
    (leaf,) = leaves if len(leaves) == 1 else (None,)
    if leaf is not None and same_memory(leaf, value):
        return value
    like: Any = leaf if leaf is not None and leaf.shape == value.shape else None
    strides = (
        value.contiguous().stride()
        if like is None
        else torch.empty_like(like, device="meta").stride()
    )
    if value.stride() == strides and is_alone(value, tensor):
        return value
    fresh = torch.empty_strided(value.shape, strides, dtype=value.dtype, device=value.device)
    return fresh.copy_(value)


def is_alone(value: Tensor, tensor: ParametrizedTensor) -> bool:
    """Whether the memory of `value` is its own, and no larger than it needs to be."""
    if value.is_meta:
        return True
    storage = value.untyped_storage()
    if storage.nbytes() != value.numel() * value.element_size():
        return False
    taken = {x.untyped_storage().data_ptr() for y in tensor.sources() for x in memory_of(y)}
    return storage.data_ptr() not in taken


def same_memory(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same entries in the same memory."""
    if a is b or a.shape != b.shape or a.dtype != b.dtype or a.is_meta or b.is_meta:
        return a is b
    if a.layout != torch.strided or b.layout != torch.strided or is_wrapper(a) or is_wrapper(b):
        return False
    return a.device == b.device and a.is_set_to(b)
