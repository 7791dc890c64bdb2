"""Shards the originals of a chain whose tensor is a DTensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from paramdesc.chain.shards import LAYOUT, layout_of_original
from paramdesc.torch_internals.replacing import replace_data
from paramdesc.torch_internals.shards import Layout, cut, cut_like, gathered
from paramdesc.torch_internals.whole import is_sharded

__all__ = ["place_originals", "whole_like", "whole_tensors"]


def whole_like(tensor: Tensor) -> Tensor:
    """`tensor`, gathered if it is a DTensor; a Parameter stays a Parameter."""
    if not is_sharded(tensor):
        return tensor
    whole = gathered(tensor.detach()).clone()  # of a replicated DTensor it is the same memory
    return Parameter(whole, tensor.requires_grad) if isinstance(tensor, Parameter) else whole


@contextmanager
def whole_tensors(parametrization: Module) -> Iterator[None]:
    """Inside the block, the DTensors of a map are plain tensors.

    Tensors that the block writes to or replaces are sharded again.
    """
    replaced = []
    for module in parametrization.modules():
        holders: tuple[Any, ...] = (module._parameters, module._buffers)
        for holder in holders:
            for name, tensor in tuple(holder.items()):
                if tensor is not None and is_sharded(tensor):
                    plain: Any = whole_like(tensor)
                    replaced.append((holder, name, tensor, plain, plain._version))
                    holder[name] = plain
    try:
        yield
    finally:
        for holder, name, tensor, plain, version in replaced:
            new: Any = holder[name]
            if new is None:
                continue
            if new is not plain or plain._version != version:
                replace_data(tensor, cut_like(new.detach(), tensor))
            holder[name] = tensor


@torch.no_grad()
def place_originals(chain: Any, shape: Sequence[int], layout: Layout) -> None:
    """Shard the originals of `chain` to fit a value with the shards of `layout`.

    The Parameters stay the same objects where torch can swap their contents. Otherwise other chains
    that hold one must get the new one, see `shared_originals.py`.

    Args:
        shape: of the value.
        layout: the one of the value.
    """
    dims = layout.dims()
    if dims is not None:
        vars(chain)[LAYOUT] = tuple(dims)
    own = chain.own_originals()
    for number, name in enumerate(chain.original_names()):
        if name not in own:  # it is parametrized itself
            nested = chain.parametrizations[name]
            place_originals(nested, getattr(chain, name).shape, layout)
            continue
        original = own[name]
        placed = layout_of_original(original.shape, number, chain, shape, layout)
        replace(chain, name, original, cut(gathered(original.detach()), placed))


def replace(chain: Any, name: str, original: Tensor, new: Tensor) -> None:
    is_parameter = isinstance(original, Parameter)
    if is_parameter:
        new = Parameter(new, original.requires_grad)
    if is_sharded(original):
        replace_data(original, new)
        return
    try:
        torch.utils.swap_tensors(original, new)  # type: ignore[no-untyped-call]
    except RuntimeError:  # others refer to it in a way that torch cannot follow
        holder: Any = chain._parameters if is_parameter else chain._buffers
        holder[name] = new
