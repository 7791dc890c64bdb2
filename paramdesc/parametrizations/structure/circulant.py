"""Circulant matrices: each row is the one above it, shifted cyclically."""

from __future__ import annotations

from torch import Tensor

from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.structure.constant_diagonals import ConstantDiagonals

__all__ = ["Circulant"]


class Circulant(ConstantDiagonals):
    """Make `layer.weight` circulant: `Y[i, j] = c[(j - i) mod n]`.

    `c[k]` is the mean of the `n` entries of `X` with `(j - i) mod n = k`. So `Y` is a cyclic
    convolution, it commutes with cyclic shifts, and the Fourier transform makes it diagonal.

    Shapes `(*, n, n) -> (*, n, n)`, floating point or complex; half precision is averaged in
    float32. Every entry of `X` has an effect. Cost: a few passes over the matrix.

    Assignment and registration keep a circulant matrix up to rounding and replace any other with
    the nearest one in the Frobenius norm, which the means also give.

    Args:
        strict: whether to reject a matrix that is not circulant instead of replacing it.

    Raises:
        ValueError: if the matrices are not square; with `strict`, if an assigned matrix is not
            circulant; the error's `deviation` is the largest difference of an entry from its mean.

    Source: T. F. Chan, *An optimal circulant preconditioner for Toeplitz systems*, SIAM J.
    Sci. Stat. Comput. 9 (1988).

    >>> linear = register_parametrization(torch.nn.Linear(2, 2), "weight", Circulant())
    >>> linear.weight = torch.tensor([[1.0, 2.0], [4.0, 5.0]])
    >>> linear.weight.tolist()
    [[3.0, 3.0], [3.0, 3.0]]
    """

    constraint = "circulant"

    def check(self, X: Tensor) -> None:
        check_square(X, "circulant")

    def means(self, sums: Tensor, m: int) -> Tensor:
        # a diagonal and the one that continues it stand m apart
        return (sums + sums.roll(m, -1)) / m
