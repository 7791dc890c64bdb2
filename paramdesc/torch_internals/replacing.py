"""Giving a tensor object other data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.__future__ import get_swap_module_params_on_conversion
from torch.nn import Parameter

from paramdesc.torch_internals.gathered import gathered_into, note_new_shard
from paramdesc.torch_internals.shards import cut_like, gathered
from paramdesc.torch_internals.tensors import is_wrapper, set_data
from paramdesc.torch_internals.whole import is_sharded

__all__ = ["replace_data"]


def replace_data(target: Tensor, source: Tensor) -> None:
    """Give `target` the data, shape and strides of `source`, without a new tensor object.

    A Parameter that FSDP2 has gathered stays in its memory. Its shard gets the numbers, too, from
    which it is gathered again.

    Raises:
        RuntimeError: by torch, if dtype, device or subclass do not allow it.
    """
    with torch.no_grad():
        gathering = gathered_into(target)
        if gathering is not None:
            shard, new = gathering.shard, gathered(source)
            shard.copy_(cut_like(new.to(shard.dtype), shard))
            target.copy_(cut_like(new, target))
        elif is_sharded(target) and is_sharded(source):
            take_shard(target, source)
        elif get_swap_module_params_on_conversion() or is_wrapper(target):
            swap(target, source)
        else:
            set_data(target, source)


def take_shard(target: Any, source: Any) -> None:
    """Give a DTensor the shard of another one, and tell FSDP2, which keeps a view of it."""
    form = ("shape", "dtype", "device", "layout")
    is_same = all(getattr(target, x) == getattr(source, x) for x in form)
    if is_same and target.stride() == source.stride():
        # swapping is not possible if a graph or a weak reference exists
        target._local_tensor, target._spec = source._local_tensor, source._spec
        torch.autograd.graph.increment_version(target)
    else:
        swap(target, source)
    note_new_shard(target)


def swap(target: Tensor, source: Tensor) -> None:
    if isinstance(target, Parameter) and not isinstance(source, Parameter):
        source = Parameter(source, requires_grad=target.requires_grad)
    torch.utils.swap_tensors(target, source)  # type: ignore[no-untyped-call]
