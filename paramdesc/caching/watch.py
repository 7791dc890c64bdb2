"""Watching one tensor, attribute or container, to tell later whether it is still as it was."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from paramdesc.caching.record import Cause, Reason
from paramdesc.torch_internals.tensors import address

__all__ = ["UNCOUNTED", "Place", "Watch", "form_of", "watch", "why_changed"]

UNCOUNTED = -1  # torch does not count the changes of inference tensors


class Place(NamedTuple):
    """Where something is bound: `holder[key]` gives it as long as nobody replaces it."""

    holder: Any
    key: Any
    value: Any


class Watch(NamedTuple):
    """One tensor, where it was found and in which state."""

    holder: Any
    key: Any
    tensor: Tensor
    version: int
    address: int  # in bytes; 0 where there is none to compare (meta, fake, wrapped, empty)
    form: Any  # compared there, and for a value that is kept for long: `.data` may be a part
    needs_gradient: bool
    storage: Any  # held so that its address is not given to another tensor


def watch(place: Place, closely: bool = False) -> Watch:
    """The state of the tensor at `place`; also its strides and shape if `closely`."""
    holder, key, tensor = place
    start = address(tensor)
    storage = tensor.untyped_storage() if start else None
    version = UNCOUNTED if tensor.is_inference() else tensor._version
    is_exact = closely and bool(start) and tensor.layout == torch.strided
    form: Any = None if start and not is_exact else form_of(tensor, is_exact)
    return Watch(holder, key, tensor, version, start, form, tensor.requires_grad, storage)


def form_of(tensor: Tensor, is_exact: bool) -> Any:
    """What tells it from another tensor without an address; or at the same one, if `is_exact`."""
    # no function that leaves the interpreter, as is_set_to does: other threads would come first
    return (tensor.shape, tensor.stride() if is_exact else tensor.dtype, tensor.device)


def why_changed(watch: Watch) -> Cause:
    """What has happened to a tensor that is not as it was."""
    tensor, name = watch.tensor, str(watch.key)
    if watch.holder[watch.key] is not tensor:
        return Cause(Reason.REPLACED, name)
    if tensor.requires_grad is not watch.needs_gradient:
        return Cause(Reason.REQUIRES_GRAD, name)
    is_written = tensor._version != watch.version
    return Cause(Reason.WRITTEN if is_written else Reason.REPLACED, name)
