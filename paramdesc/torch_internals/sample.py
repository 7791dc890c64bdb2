"""A few entries of a tensor, which tell whether it was rewritten without being counted."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.torch_internals.mode import has_numbers

__all__ = ["differs", "sample"]

MOST = 64
"""About how many entries are compared."""


def sample(tensor: Tensor, anywhere: bool = False) -> Tensor | None:
    """A copy of up to `MOST` entries, spread over the tensor; None where they cost too much.

    That is on other devices than a CPU, where to compare them waits for the device, unless
    `anywhere`; and where there are none to look at.
    """
    if not (anywhere or tensor.device.type == "cpu"):
        return None
    if type(tensor.data) is not Tensor or tensor.layout is not torch.strided:
        return None
    return picked(tensor).clone() if has_numbers(tensor) else None


def differs(tensor: Tensor, before: Tensor | None, at_least: int = 1) -> bool:
    """Whether `tensor` holds other numbers than when the sample was taken, as far as it tells.

    Args:
        tensor: what the sample was taken of.
        before: the sample.
        at_least: how many entries must have changed, if it has so many.
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
    except RuntimeError:  # it is of another dtype or device now
        return True


def picked(tensor: Tensor) -> Tensor:
    """A view of some entries: of each dimension every so many."""
    return tensor.detach()[steps_over(tensor.shape)]


def steps_over(shape: torch.Size) -> tuple[slice, ...]:
    """The slices that take up to `MOST` entries of a tensor of this shape."""
    slices, left = [], MOST
    for dimension, size in enumerate(shape):
        count = max(1, round(left ** (1 / (len(shape) - dimension))))
        step = max(1, -(-size // count))
        slices.append(slice(None, None, step))
        left = max(1, left // max(1, -(-size // step)))
    return tuple(slices)
