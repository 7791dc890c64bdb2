"""Skew-symmetric matrices."""

from __future__ import annotations

from torch import Tensor

from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.structure.mirrored import Mirrored

__all__ = ["Skew", "skew"]


class Skew(Mirrored):
    """Make `layer.weight` skew-symmetric, `Yᵀ = -Y`: `Y = triu(X, 1) - triu(X, 1)ᵀ`.

    Shapes `(*, n, n) -> (*, n, n)`, of any signed dtype; complex matrices become skew-symmetric,
    see `SkewHermitian` for the conjugate version. The entries of `X` on and below the diagonal have
    no effect and get no gradient. Cost: two passes over the matrix.

    Assignment and registration keep a skew-symmetric matrix as it is and replace any other with the
    nearest one in the Frobenius norm, `(A - Aᵀ) / 2`.

    Args:
        strict: whether to reject a matrix that is not skew-symmetric instead of replacing it.

    Raises:
        ValueError: if the matrices are not square; with `strict`, if an assigned matrix is not
            skew-symmetric; the error's `deviation` is the largest sum of two opposite entries.

    Source: K. Fan, A. J. Hoffman, *Some metric inequalities in the space of matrices*,
    Proc. Amer. Math. Soc. 6 (1955), theorem 2, for `iA`.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Skew())
    >>> bool((linear.weight == -linear.weight.T).all())
    True
    """

    constraint = "skew-symmetric"

    def check(self, X: Tensor) -> None:
        check_square(X, "skew-symmetric")

    def image(self, X: Tensor) -> Tensor:
        return -X.mT

    def from_upper(self, X: Tensor) -> Tensor:
        return skew(X)


def skew(X: Tensor) -> Tensor:
    """The skew-symmetric matrix with the entries of `X` above the diagonal."""
    upper = X.triu(1)
    return upper - upper.mT
