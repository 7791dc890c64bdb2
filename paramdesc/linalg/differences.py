"""The distance between two tensors, for the deviations of maps."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["largest_difference", "largest_entry"]


def largest_entry(X: Tensor) -> Tensor:
    """The largest absolute value in `X`, a real scalar; zero if `X` is empty."""
    if X.numel() == 0:
        return torch.zeros((), device=X.device)
    return (X.int() if X.dtype == torch.bool else X).abs().max()


def largest_difference(A: Tensor, B: Tensor) -> Tensor:
    """The largest absolute difference of two entries at the same place, a real scalar."""
    return largest_entry(A ^ B if A.dtype == torch.bool else A - B)
