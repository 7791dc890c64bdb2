"""Watching tensors, attributes and containers for changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paramdesc.caching.record import Cause, Reason
from paramdesc.torch_internals.tensors import address

__all__ = ["UNCOUNTED", "Place", "Watch", "form_of", "make_check", "watch"]

UNCOUNTED = -1  # torch does not count the changes of inference tensors


class Place(NamedTuple):
    """Where something is bound: `holder[key] is value` until it is replaced."""

    holder: Any
    key: Any
    value: Any


class Watch(NamedTuple):
    """A tensor, where it was found, and the state that it had."""

    holder: Any
    key: Any
    tensor: Tensor
    version: int
    address: int  # in bytes; 0 if there is none (meta, fake, wrapped, empty)
    form: Any  # compared without an address, and with `closely`: `.data` may become a part of it
    needs_gradient: bool
    storage: Any  # a reference, so that no other tensor gets its address


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
    """What distinguishes `tensor` from others without an address, or with its own if `is_exact`."""
    # not is_set_to, which releases the interpreter lock: other threads would run in between
    return (tensor.shape, tensor.stride() if is_exact else tensor.dtype, tensor.device)


def why_changed(watch: Watch) -> Cause:
    """How a watched tensor has changed."""
    tensor, name = watch.tensor, str(watch.key)
    if watch.holder[watch.key] is not tensor:
        return Cause(Reason.REPLACED, name)
    if tensor.requires_grad is not watch.needs_gradient:
        return Cause(Reason.REQUIRES_GRAD, name)
    is_written = tensor._version != watch.version
    return Cause(Reason.WRITTEN if is_written else Reason.REPLACED, name)


def make_check(
    watches: Sequence[Watch],
    bound: Sequence[tuple[Any, Any, Any]],
    lengths: Sequence[tuple[Any, int]],
    all_empty: tuple[Any, ...],
) -> Callable[[], Cause | None]:
    """A function that returns why something has changed, or None. It runs at every read.

    Most chains have one tensor to watch. It is compared inline, any others in a loop.
    """
    first: Any
    # plain tuples: unpacking a named one takes twice as long
    first, *others = [tuple(watch) for watch in watches] or [({}, None, None, 0, 0, None, 0, None)]
    holder, key, tensor, version, start, form, needs_gradient, _ = first
    has_tensors = bool(watches)

    def check() -> Cause | None:
        name = key
        try:
            if has_tensors and (
                holder[key] is not tensor
                or (version != UNCOUNTED and tensor._version != version)
                or (start and tensor.data_ptr() != start)
                or (form is not None and form_of(tensor, bool(start)) != form)
                or tensor.requires_grad is not needs_gradient
            ):
                return why_changed(watches[0])
            for there, name, x, x_version, x_start, x_form, x_needs_gradient, x_storage in others:
                if (
                    there[name] is not x
                    or (x_version != UNCOUNTED and x._version != x_version)
                    or (x_start and x.data_ptr() != x_start)
                    or (x_form is not None and form_of(x, bool(x_start)) != x_form)
                    or x.requires_grad is not x_needs_gradient
                ):
                    state = x_version, x_start, x_form, x_needs_gradient, x_storage
                    return why_changed(Watch(there, name, x, *state))
            for there, name, thing in bound:
                if there[name] is not thing:
                    return Cause(Reason.ATTRIBUTE, str(name))
            for container, length in lengths:
                if len(container) != length:
                    return Cause(Reason.ATTRIBUTE)
            if any(all_empty):
                return Cause(Reason.ATTRIBUTE)
        except LookupError:
            return Cause(Reason.REPLACED, str(name))
        return None

    return check
