"""Symmetric matrices."""

from __future__ import annotations

from torch import Tensor

from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.structure.mirrored import Mirrored

__all__ = ["Symmetric", "symmetric"]


class Symmetric(Mirrored):
    """Make `layer.weight` symmetric: `Y = triu(X) + triu(X, 1)ᵀ`.

    Shapes `(*, n, n) -> (*, n, n)`, of any dtype; complex matrices become symmetric, not Hermitian,
    see `Hermitian`. The entries of `X` below the diagonal have no effect and get no gradient.

    Assignment and registration keep a symmetric matrix as it is and replace any other with the
    nearest symmetric one in the Frobenius norm, `(A + Aᵀ) / 2`.

    Args:
        strict: whether to reject a matrix that is not symmetric instead of replacing it.

    Raises:
        ValueError: if the matrices are not square; with `strict`, if an assigned matrix is not
            symmetric; the error's `deviation` is the largest difference from its transpose.

    Source: N. J. Higham, *Computing a nearest symmetric positive semidefinite matrix*,
    Linear Algebra Appl. 103 (1988), section 1.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Symmetric())
    >>> bool((linear.weight == linear.weight.T).all())
    True
    """

    constraint = "symmetric"

    def check(self, X: Tensor) -> None:
        check_square(X, "symmetric")

    def image(self, X: Tensor) -> Tensor:
        return X.mT

    def from_upper(self, X: Tensor) -> Tensor:
        return symmetric(X)


def symmetric(X: Tensor) -> Tensor:
    """The symmetric matrix with the upper triangle of `X`."""
    return X.triu() + X.triu(1).mT
