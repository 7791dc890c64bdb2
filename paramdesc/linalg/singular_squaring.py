"""The leading singular vectors of small matrices, by powers of their Gram matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.linalg.precision import in_double, smallest_normal
from paramdesc.linalg.singular_iteration import norm

__all__ = ["improve_by_squaring", "is_small"]


def is_small(M: Tensor) -> bool:
    """Whether products of the Gram matrix with itself take no longer than other operations."""
    has_double = M.device.type != "mps"
    return has_double and 0 < min(M.shape) <= 32 and M.numel() <= 32768


def improve_by_squaring(M: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Better leading singular vectors of a small matrix, from unit vectors `u` and `v`.

    They are those of 256 power iterations from the one that belongs to the smaller side of `M`:
    the Gram matrix of that side is squared eight times, in double precision. Where the matrix is
    zero or not finite, and where the vector is orthogonal to the solution, the last one stays.

    Asks nothing of the data.
    """
    if M.shape[0] > M.shape[1]:
        right, left = improve_by_squaring(M.mH, v, u)
        return left, right
    wide = in_double(M)
    if M.dtype == wide.dtype:  # squares of the entries might overflow or vanish
        largest = norm(wide.flatten(), math.inf)
        wide = wide / torch.threshold(largest, smallest_normal(largest), 1.0)
    power = wide @ wide.mH
    # of the largest eigenvalue, at least 1 / 8 is left: its power 256 is a normal number
    power = power / torch.linalg.vector_norm(power)
    for _ in range(8):
        power = power @ power
    left = torch.mv(power, in_double(u))
    left = left / norm(left)
    right = torch.mv(wide.mH, left)
    length = norm(right)
    is_found = length > 0  # false for NaN, too
    return (
        torch.where(is_found, left.to(u.dtype), u),
        torch.where(is_found, (right / length).to(v.dtype), v),
    )
