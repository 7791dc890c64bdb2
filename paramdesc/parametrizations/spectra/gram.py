"""Matrices of inner products."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_difference, largest_entry
from paramdesc.linalg.precision import epsilon, matmul, widened
from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.spectra.positive_definite import (
    eigenvalues_below,
    hermitian_part,
    hermitian_root,
)

__all__ = ["Gram"]


class Gram(Parametrization):
    """Make `layer.weight` a Gram matrix: `Y = X Xᴴ`, or `Xᴴ X` with `columns=True`.

    The entry `(i, j)` is the inner product of rows `i` and `j` of `X`, or of its columns. So `Y` is
    positive semidefinite, and symmetric or Hermitian.

    Shapes `(*, n, n) -> (*, n, n)`, real and complex; half precision is computed in float32.
    The cost is one product of `n x n` matrices, and two for the gradient. `X = 0` is a
    stationary point of every loss.

    Assignment and registration keep a positive semidefinite matrix and replace any other with the
    nearest one in the Frobenius norm: its Hermitian part with negative eigenvalues set to zero, or
    more exactly to `sqrt(eps) / 2` times its norm, because at zero there is no gradient. `X`
    becomes the positive semidefinite square root.

    Args:
        columns: whether to take the inner products of columns rather than rows.
        strict: whether to reject a matrix that is not positive semidefinite instead of replacing
            it.

    Raises:
        ValueError: if the matrices are not square; with `strict`, if an assigned matrix is not
            positive semidefinite; the error's `deviation` is its largest difference from its
            conjugate transpose or minus its smallest eigenvalue, whichever is larger.

    Source: see `PositiveDefinite`.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Gram())
    >>> X = linear.parametrizations.weight.original
    >>> torch.allclose(linear.weight[0, 1], X[0] @ X[1])
    True
    """

    constraint = "positive semidefinite"

    def __init__(self, columns: bool = False, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self.columns = columns

    def forward(self, X: Tensor) -> Tensor:
        check_square(X, "Gram")
        W = widened(X)
        return (matmul(W.mH, W) if self.columns else matmul(W, W.mH)).to(X.dtype)

    def right_inverse(self, Y: Tensor) -> Tensor:
        check_square(Y, "Gram")
        self.admit(Y)
        values, vectors = torch.linalg.eigh(hermitian_part(widened(Y)))
        return hermitian_root(values, vectors, 0.0, nudge=True).to(Y.dtype)

    def deviation(self, Y: Tensor) -> Tensor:
        return torch.maximum(largest_difference(Y, Y.mH), eigenvalues_below(Y, 0.0))

    def tolerance(self, Y: Tensor) -> float:
        return 4 * epsilon(Y) * largest_entry(torch.linalg.matrix_norm(widened(Y))).item()

    def extra_repr(self) -> str:
        return ", ".join(["columns=True"] * self.columns + ["strict=True"] * self.strict)
