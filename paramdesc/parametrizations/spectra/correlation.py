"""Correlation matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_difference, largest_entry
from paramdesc.linalg.precision import epsilon, matmul, smallest_normal, widened
from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.base_point import check_rebase, shown_rebase
from paramdesc.parametrizations.spectra.positive_definite import (
    check_floor,
    eigenvalues_below,
    hermitian_part,
    triangular,
)
from paramdesc.torch_internals.placeholders import is_placeholder

__all__ = ["Correlation"]

PROJECTIONS = 30


class Correlation(Parametrization):
    """Make `layer.weight` a correlation matrix: positive definite, with ones on the diagonal.

    `Y = (1 - floor) L Lᴴ + floor I`, where `L` is `tril(X)` with each row divided by its length. A
    row of zeros is replaced by the row of the identity. The diagonal is exactly one, all
    eigenvalues are at least `floor`, and the other entries are the cosines of the angles between
    the rows of `L`, times `1 - floor`.

    Shapes `(*, n, n) -> (*, n, n)`, real and complex; half precision is computed in float32.
    The entries of `X` above the diagonal have no effect and get no gradient. The cost is one
    product of `n x n` matrices, and two for the gradient.

    Assignment and registration keep a correlation matrix whose eigenvalues are at least `floor`.
    Any other matrix is replaced by one close to the nearest correlation matrix in the Frobenius
    norm, found by 30 alternating projections to matrices with such eigenvalues and to matrices with
    unit diagonal. Each takes an eigendecomposition, and the last result is scaled to unit diagonal.
    To get the correlations of a covariance matrix, divide it by the standard deviations first.

    Args:
        floor: the smallest allowed eigenvalue, between zero and one.
        rebase: the number of training steps after which the original is reset to `L`, as in
            `Sphere`; None for never.
        strict: whether to reject a matrix that is not a correlation matrix instead of replacing it.

    Raises:
        ValueError: if the matrices are not square, or `floor` is out of its range; with `strict`,
            if an assigned matrix is not a correlation matrix; the error's `deviation` is the
            largest of its difference from its conjugate transpose, the difference of its diagonal
            from one, and the amount by which its smallest eigenvalue is below `floor`.

    Source: N. J. Higham, *Computing the nearest correlation matrix: a problem from finance*,
    IMA J. Numer. Anal. 22 (2002), algorithm 3.3.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Correlation())
    >>> linear.weight.diagonal().tolist()
    [1.0, 1.0, 1.0]
    """

    constraint = "a correlation matrix"

    def __init__(
        self, floor: float = 1e-6, *, rebase: int | None = 50, strict: bool = False
    ) -> None:
        super().__init__(strict=strict)
        check_floor(floor)
        check_rebase(rebase)
        self.rebase = rebase
        if floor >= 1:
            raise ValueError(f"floor must be less than one. Got floor={floor}.")
        self.floor = floor

    def forward(self, X: Tensor) -> Tensor:
        check_square(X, "correlation")
        L = unit_rows(widened(X).tril())
        identity = torch.eye(X.shape[-1], dtype=torch.bool, device=X.device)
        Y: Tensor = torch.where(identity, 1.0, (1 - self.floor) * matmul(L, L.mH))
        return Y.to(X.dtype)

    def right_inverse(self, Y: Tensor) -> Tensor:
        check_square(Y, "correlation")
        self.admit(Y)
        if is_placeholder(Y):
            return Y.new_empty(Y.shape)
        values, vectors = nearest_correlation(widened(Y), self.floor)
        L = triangular(vectors * (values - self.floor).sqrt().unsqueeze(-2))
        return unit_rows(L).to(Y.dtype)

    def recenter(self, X: Tensor) -> tuple[Tensor, ...]:
        """`L`, whose rows have length one, while optimizer steps make the rows of `X` longer."""
        return (unit_rows(widened(X).tril()).to(X.dtype),)

    def deviation(self, Y: Tensor) -> Tensor:
        diagonal = largest_entry(Y.diagonal(dim1=-2, dim2=-1) - 1)
        below = eigenvalues_below(Y, self.floor)
        return torch.maximum(torch.maximum(largest_difference(Y, Y.mH), diagonal), below)

    def tolerance(self, Y: Tensor) -> float:
        return 4 * epsilon(Y) * largest_entry(torch.linalg.matrix_norm(widened(Y))).item()

    def extra_repr(self) -> str:
        shown = [f"floor={self.floor}", *shown_rebase(self)]
        return ", ".join(shown + ["strict=True"] * self.strict)


def unit_rows(L: Tensor) -> Tensor:
    """`L` with each row divided by its length; a zero row becomes the row of the identity.

    A row is first divided by its largest entry: squares may overflow or vanish.
    """
    identity = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    largest = torch.linalg.vector_norm(L.detach(), math.inf, dim=-1, keepdim=True)
    vanishes = largest <= smallest_normal(largest)
    rows = torch.where(vanishes, identity, L / torch.where(vanishes, 1.0, largest))
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / lengths


def nearest_correlation(Y: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a matrix close to the nearest correlation matrix.

    Alternating projections with Dykstra's correction. The eigenvalues are at least `floor`.
    """
    identity = torch.eye(Y.shape[-1], dtype=torch.bool, device=Y.device)
    current, correction = hermitian_part(Y), torch.zeros_like(Y)
    values, vectors = torch.linalg.eigh(current)
    for _ in range(PROJECTIONS):
        current = torch.where(identity, 1.0, current)
        values, vectors = torch.linalg.eigh(current - correction)
        clipped = matmul(vectors * values.clamp(min=floor).unsqueeze(-2), vectors.mH)
        correction = clipped - (current - correction)
        current = clipped
    return values.clamp(min=floor), vectors
