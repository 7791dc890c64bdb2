"""Symmetric matrices."""

from __future__ import annotations

from torch import Tensor

from paramdesc.base import Parametrization
from paramdesc.linalg.differences import largest_difference, largest_entry
from paramdesc.linalg.precision import epsilon
from paramdesc.linalg.shapes import check_square

__all__ = ["Symmetric"]


class Symmetric(Parametrization):
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
        return X.triu() + X.triu(1).mT

    def right_inverse(self, Y: Tensor) -> Tensor:
        check_square(Y, "symmetric")
        self.admit(Y)
        if not (Y.is_floating_point() or Y.is_complex()):
            return Y
        return Y + (Y.mT - Y) / 2  # rather than (Y + Y.mT) / 2, which overflows sooner

    def deviation(self, Y: Tensor) -> Tensor:
        return largest_difference(Y, Y.mT)

    def tolerance(self, Y: Tensor) -> float:
        return 4 * epsilon(Y) * largest_entry(Y).item()
