"""Samples of tensors, to detect writes that torch does not count."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.torch_internals.mode import has_numbers

__all__ = ["differs", "sample"]

MOST = 64
"""The approximate number of entries that are compared."""


def sample(tensor: Tensor, anywhere: bool = False) -> Tensor | None:
    """A copy of about `MOST` entries, spread over the tensor; None if it cannot be sampled.

    Without `anywhere`, only tensors on a CPU are sampled: on other devices, a comparison waits for
    the device. Sparse tensors, subclasses and tensors without numbers are never sampled.
    """
    if not (anywhere or tensor.device.type == "cpu"):
        return None
    if type(tensor.data) is not Tensor or tensor.layout is not torch.strided:
        return None
    return picked(tensor).clone() if has_numbers(tensor) else None


def differs(tensor: Tensor, before: Tensor | None, at_least: int = 1) -> bool:
    """Whether `tensor` differs from a sample that was taken of it.

    Args:
        tensor: the tensor that was sampled.
        before: the sample; None never differs.
        at_least: the number of entries that must differ. Smaller samples must differ in all.
    """
    if before is None:
        return False
    now = picked(tensor)
    try:
        if torch.equal(now, before):
            return False
        if now.shape != before.shape:
            return True
        changed = (now != before) & ~(now.isnan() & before.isnan())
        return int(changed.sum()) >= min(at_least, before.numel())
    except RuntimeError:  # the dtype or device has changed
        return True


def picked(tensor: Tensor) -> Tensor:
    """A view of some entries, evenly spaced in each dimension."""
    return tensor.detach()[steps_over(tensor.shape)]


def steps_over(shape: torch.Size) -> tuple[slice, ...]:
    """The slices that take about `MOST` entries of a tensor of this shape."""
    slices, left = [], MOST
    for dimension, size in enumerate(shape):
        count = max(1, round(left ** (1 / (len(shape) - dimension))))
        step = max(1, -(-size // count))
        slices.append(slice(None, None, step))
        left = max(1, left // max(1, -(-size // step)))
    return tuple(slices)
