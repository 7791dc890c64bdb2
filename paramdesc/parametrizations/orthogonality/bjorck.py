"""Matrices that are orthogonal to a given accuracy, by the iteration of Björck and Bowie."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.orthogonality import is_orthonormal, non_orthonormality
from paramdesc.linalg.polar import nearest_orthonormal
from paramdesc.linalg.precision import epsilon, matmul, smallest_normal, widened
from paramdesc.linalg.shapes import check_matrix
from paramdesc.torch_internals.placeholders import is_placeholder

__all__ = ["Bjorck"]


class Bjorck(Parametrization):
    """Make `layer.weight` orthogonal to a given accuracy, with spectral norm at most one.

    `X` is divided by an upper bound of its spectral norm. Then `count` iterations
    `Y (3 I - Yᴴ Y) / 2` move each singular value in `(0, 1)` towards one. If the condition number
    of `X` is at most `condition`, all singular values end between `1 - accuracy` and one. If it is
    larger, the smallest ones stay below that. The number of iterations depends on these two numbers
    and the size of the matrix, never on its entries.

    Shapes `(*, m, n) -> (*, m, n)`; real and complex; half precision is computed in float32. A
    wide matrix is the conjugate transpose of a tall one. Zero stays zero, with finite gradient.

    `Orthogonal("polar")` is orthogonal to rounding for any condition number, and takes fewer
    products. `Orthogonal()` is the fastest.

    Assignment and registration keep a matrix that is orthogonal to rounding and replace any other
    with the nearest one in the Frobenius norm, its polar factor.

    Cost, forward: two products for each iteration, and two for the norm. For `accuracy=1e-3` and
    `condition=100`, 16 iterations at `n = 64`; a condition number ten times as large takes 6 more.

    Args:
        accuracy: the largest distance of a singular value from one, between 0 and 1.
        condition: the condition number up to which this holds, above 1.
        strict: whether to reject a matrix that is not orthogonal to that accuracy instead of
            projecting it.

    Raises:
        ValueError: if an argument is out of its range, or the weight is not a matrix; with
            `strict`, if the Frobenius norm of `Yᴴ Y - I` exceeds the tolerance.

    Source: Å. Björck and C. Bowie, *An iterative algorithm for computing the best estimate of an
    orthogonal matrix*, SIAM J. Numer. Anal. 8 (1971); for layers: C. Anil, J. Lucas and R. Grosse,
    *Sorting out Lipschitz function approximation*, ICML 2019, section 4.2.

    >>> linear = register_parametrization(torch.nn.Linear(3, 5), "weight", Bjorck())
    >>> torch.allclose(linear.weight.T @ linear.weight, torch.eye(3), atol=1e-2)
    True
    """

    constraint = "orthogonal to the given accuracy"
    batching = "leading"

    def __init__(
        self, accuracy: float = 1e-3, *, condition: float = 100.0, strict: bool = False
    ) -> None:
        super().__init__(strict=strict)
        if not 0 < accuracy < 1:
            raise ValueError(f"accuracy must be between 0 and 1. Got accuracy={accuracy}.")
        if not 1 < condition < math.inf:
            raise ValueError(f"condition must be above 1 and finite. Got condition={condition}.")
        self.accuracy = accuracy
        self.condition = condition

    def forward(self, X: Tensor) -> Tensor:
        check_matrix(X, "orthogonal")
        if X.shape[-2] < X.shape[-1]:
            return self.tall(widened(X).mT).mT.to(X.dtype)
        return self.tall(widened(X)).to(X.dtype)

    def tall(self, X: Tensor) -> Tensor:
        if X.numel() == 0:
            return X
        # far from overflow first, by a constant: the value does not depend on the scale
        size = X.detach().abs().amax(dim=[-2, -1], keepdim=True)
        X = X / torch.where(size > smallest_normal(size), size, 1.0)
        inner = matmul(X.mH, X)
        square = matmul(inner, inner)
        # the sum of squares of the entries is at most n times the eighth power of the norm
        bound = torch.real(square * square.conj()).sum(dim=[-2, -1], keepdim=True)
        is_zero = bound <= smallest_normal(bound)
        scale = bound.masked_fill(is_zero, 1.0).pow(-0.125)
        Y = X * scale
        inner = inner * scale.square()
        for i in range(self.count(X.shape[-1])):
            if i > 0:
                inner = matmul(Y.mH, Y)
            Y = 1.5 * Y - 0.5 * matmul(Y, inner)
        return Y

    def count(self, n: int) -> int:
        """The number of iterations for matrices of `n` columns."""
        value = 1.0 / (self.condition * float(n) ** 0.125)
        found = 0
        while value < 1.0 - self.accuracy:
            value = value * (3.0 - value * value) / 2.0
            found += 1
        return found

    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> Tensor:
        check_matrix(Y, "orthogonal")
        self.admit(Y)
        if is_placeholder(Y) or is_orthonormal(widened(Y), 10.0):
            return Y
        return nearest_orthonormal(Y).contiguous()

    def deviation(self, Y: Tensor) -> Tensor:
        """The Frobenius norm of `Yᴴ Y - I`, or of `Y Yᴴ - I` if `Y` has fewer rows."""
        return non_orthonormality(Y)

    def tolerance(self, Y: Tensor) -> float:
        return (2 * self.accuracy + 20 * epsilon(Y)) * math.sqrt(min(Y.shape[-2:]))

    def extra_repr(self) -> str:
        shown = f"accuracy={self.accuracy}, condition={self.condition}"
        return shown + ", strict=True" * self.strict
