"""Toeplitz matrices: each diagonal is constant."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.precision import widened
from paramdesc.linalg.shapes import check_matrix
from paramdesc.parametrizations.structure.linear_structure import LinearStructure

__all__ = ["Toeplitz", "diagonal_sums", "spread_diagonals"]


class Toeplitz(LinearStructure):
    """`layer.weight` will be Toeplitz: each diagonal of `Y` is the mean of that of `X`.

    So `Y[i, j]` depends on `j - i` alone, as in a convolution over a sequence.

    Shapes `(*, m, n) -> (*, m, n)`, floating point or complex; half precision is averaged in
    float32. Every entry of `X` has an effect. Cost: a few passes over the matrix.

    Assigning, and registering on a weight, keeps a Toeplitz matrix to rounding, and replaces
    any other by the nearest in the Frobenius norm, which the means give too.

    Args:
        strict: whether to refuse a matrix that is not Toeplitz instead.

    Raises:
        ValueError: if it is no matrix; with `strict`, if one that is assigned is not
            Toeplitz, with the largest difference of an entry from the mean of its diagonal.

    Source: R. M. Gray, *Toeplitz and circulant matrices: a review*, Found. Trends Commun.
    Inf. Theory 2 (2006), equation 1.1; the mean of equal entries is the least squares fit.

    >>> linear = register_parametrization(torch.nn.Linear(3, 2), "weight", Toeplitz())
    >>> linear.weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> linear.weight.tolist()
    [[3.0, 4.0, 3.0], [4.0, 3.0, 4.0]]
    """

    constraint = "Toeplitz"
    roundings = 20

    def project(self, X: Tensor) -> Tensor:
        check_matrix(X, "Toeplitz")
        if X.numel() == 0:
            return X
        m, n = X.shape[-2], X.shape[-1]
        sums = diagonal_sums(widened(X))
        lengths = (n - torch.arange(m + n, device=X.device)).abs().clamp(1, min(m, n))
        return spread_diagonals(sums / lengths, m).to(X.dtype)


def diagonal_sums(X: Tensor) -> Tensor:
    """The sum of each diagonal of `X`: that of the `X[i, j]` at index `(j - i) mod (m + n)`.

    Rows of `m + n - 1` entries, read as rows of one more, stand one further to the left each.
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
