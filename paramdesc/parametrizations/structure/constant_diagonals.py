"""Matrices with constant diagonals, computed by sums over diagonals."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.precision import widened
from paramdesc.parametrizations.structure.linear_structure import LinearStructure

__all__ = ["ConstantDiagonals"]


class ConstantDiagonals(LinearStructure):
    """A map that makes each diagonal constant. Subclasses define `check` and `means`."""

    roundings = 20

    def check(self, X: Tensor) -> None:
        """Raise if the map cannot take a tensor of this shape."""
        raise NotImplementedError

    def means(self, sums: Tensor, m: int) -> Tensor:
        """The value on each diagonal of `m` rows, from its sum, in the order of `diagonal_sums`."""
        raise NotImplementedError

    def project(self, X: Tensor) -> Tensor:
        self.check(X)
        if X.numel() == 0:
            return X
        m = X.shape[-2]
        return spread_diagonals(self.means(diagonal_sums(widened(X)), m), m).to(X.dtype)


def diagonal_sums(X: Tensor) -> Tensor:
    """The sums of the diagonals of `X`: that of `X[i, j]` is at index `(j - i) mod (m + n)`.

    The rows are padded to `m + n - 1` entries and read as rows of `m + n` entries, which shifts
    each row one further to the left than the row above.
    """
    m, n = X.shape[-2], X.shape[-1]
    padded = torch.nn.functional.pad(X, (0, m - 1, 0, 1)).flatten(-2)[..., : m * (m + n)]
    return torch.unflatten(padded, -1, (m, m + n)).sum(-2)


def spread_diagonals(values: Tensor, m: int) -> Tensor:
    """The matrix `(*, m, n)` with `values[(j - i) mod (m + n)]` at `[i, j]`."""
    n = values.shape[-1] - m
    # the last row first, as its window of the diagonals is the first
    windows = values.roll(m - 1, -1)[..., :-1].unfold(-1, n, 1)
    return windows.flip(-2)
