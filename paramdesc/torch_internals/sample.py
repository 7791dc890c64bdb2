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


def differs(tensor: Tensor, before: Tensor | None) -> bool:
    """Whether `tensor` holds other numbers than when the sample was taken, as far as it tells."""
    if before is None:
        return False
    now = picked(tensor)
    if now.shape != before.shape or now.dtype != before.dtype or now.device != before.device:
        return True
    return not torch.equal(now, before)


@torch.no_grad()
def picked(tensor: Tensor) -> Tensor:
    """A view of some entries: of each dimension every so many."""
    result, left = tensor.detach(), MOST
    for dimension, size in enumerate(tensor.shape):
        dimensions_left = tensor.ndim - dimension
        count = max(1, round(left ** (1 / dimensions_left)))
        step = -(-size // count) if size else 1
        result = result[(slice(None),) * dimension + (slice(None, None, step),)]
        left = max(1, left // max(1, result.shape[dimension]))
    return result
