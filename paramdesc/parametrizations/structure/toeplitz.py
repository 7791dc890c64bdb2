"""Toeplitz matrices: each diagonal is constant."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.shapes import check_matrix
from paramdesc.parametrizations.structure.constant_diagonals import ConstantDiagonals

__all__ = ["Toeplitz"]


class Toeplitz(ConstantDiagonals):
    """Make `layer.weight` a Toeplitz matrix: each diagonal of `Y` is the mean of that of `X`.

    So `Y[i, j]` depends on `j - i` alone, as in a convolution over a sequence.

    Shapes `(*, m, n) -> (*, m, n)`, floating point or complex; half precision is averaged in
    float32. Every entry of `X` has an effect. Cost: a few passes over the matrix.

    Assignment and registration keep a Toeplitz matrix up to rounding and replace any other with the
    nearest one in the Frobenius norm, which the means also give.

    Args:
        strict: whether to reject a matrix that is not Toeplitz instead of replacing it.

    Raises:
        ValueError: if the weight is not a matrix; with `strict`, if an assigned matrix is not
            Toeplitz; the error's `deviation` is the largest difference of an entry from the mean of
            its diagonal.

    Source: R. M. Gray, *Toeplitz and circulant matrices: a review*, Found. Trends Commun. Inf.
    Theory 2 (2006), equation 1.1; the mean is the least-squares fit.

    >>> linear = register_parametrization(torch.nn.Linear(3, 2), "weight", Toeplitz())
    >>> linear.weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> linear.weight.tolist()
    [[3.0, 4.0, 3.0], [4.0, 3.0, 4.0]]
    """

    constraint = "Toeplitz"

    def check(self, X: Tensor) -> None:
        check_matrix(X, "Toeplitz")

    def means(self, sums: Tensor, m: int) -> Tensor:
        n = sums.shape[-1] - m
        lengths = (n - torch.arange(m + n, device=sums.device)).abs().clamp(1, min(m, n))
        return sums / lengths
