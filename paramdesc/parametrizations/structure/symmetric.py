"""Symmetric matrices."""

from __future__ import annotations

from torch import Tensor

from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.structure.linear_structure import LinearStructure, largest_deviation

__all__ = ["Symmetric", "symmetric"]


class Symmetric(LinearStructure):
    """`layer.weight` will be symmetric: `Y = triu(X) + triu(X, 1)ᵀ`.

    Shapes `(*, n, n) -> (*, n, n)`, of any dtype; complex matrices are symmetric, not
    Hermitian. The entries of `X` below the diagonal have no effect and get no gradient.

    Assigning, and registering on a weight, keeps a symmetric matrix as it is, and replaces
    any other by the nearest symmetric one in the Frobenius norm, `(A + Aᵀ) / 2`.

    Args:
        strict: whether to refuse a matrix that is not symmetric instead.

    Raises:
        ValueError: if the matrices are not square; with `strict`, if one that is assigned
            is not symmetric, with the largest difference from its transpose.

    Source: N. J. Higham, *Computing a nearest symmetric positive semidefinite matrix*,
    Linear Algebra Appl. 103 (1988), section 1.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Symmetric())
    >>> bool((linear.weight == linear.weight.T).all())
    True
    """

    constraint = "symmetric"

    def forward(self, X: Tensor) -> Tensor:
        check_square(X, "symmetric")
        return symmetric(X)

    def project(self, X: Tensor) -> Tensor:
        check_square(X, "symmetric")
        if not (X.is_floating_point() or X.is_complex()):
            return symmetric(X)
        return X + (X.mT - X) / 2  # rather than (X + X.mT) / 2, which overflows sooner

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest difference of an entry from that of the transpose."""
        return largest_deviation(Y, Y.mT)


def symmetric(X: Tensor) -> Tensor:
    """The symmetric matrix with the upper triangle of `X`."""
    return X.triu() + X.triu(1).mT
