"""Positive definite matrices, from a triangular or square factor."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_difference, largest_entry
from paramdesc.linalg.precision import epsilon, matmul, widened
from paramdesc.linalg.shapes import check_square

__all__ = [
    "PositiveDefinite",
    "check_floor",
    "definite",
    "eigenvalues_below",
    "excess",
    "hermitian_part",
    "hermitian_root",
    "lower_factor",
    "triangular",
]


class PositiveDefinite(Parametrization):
    """Make `layer.weight` positive definite: `Y = L Lᴴ + floor I`, with `L = tril(X)`.

    The value is symmetric, or Hermitian if complex. All eigenvalues are at least `floor` for any
    `X`, up to the rounding of the product, which is about the precision times the norm of `Y`.

    Shapes `(*, n, n) -> (*, n, n)`, real and complex; half precision is computed in float32.
    The cost is one product of `n x n` matrices, and two for the gradient.

    With `triangular=False`, `Y = X Xᴴ + floor I`. The set of values is the same, and so is the
    value of a triangular original, so checkpoints work in both directions while `X` is triangular.
    Choose it for gradient descent: a positive definite matrix has one triangular factor, but many
    square ones, and the path to the nearest of these is shorter and better conditioned. With
    `triangular=True`, the entries of `X` above the diagonal have no effect and get no gradient.

    Assignment and registration keep a positive definite matrix whose eigenvalues are at least
    `floor`, and replace any other with the nearest such matrix in the Frobenius norm: its Hermitian
    part, with smaller eigenvalues raised to `floor`. More exactly, they are raised to `floor` plus
    `sqrt(eps) / 2` times the norm of the matrix, because at `floor` there is no gradient.

    Args:
        floor: the smallest allowed eigenvalue, positive.
        triangular: whether the factor is triangular.
        strict: whether to reject a matrix that is not positive definite instead of replacing it.

    Raises:
        ValueError: if the matrices are not square, or `floor` is not positive; with `strict`, if an
            assigned matrix is not in the set; the error's `deviation` is its largest difference
            from its conjugate transpose or the amount by which its smallest eigenvalue is below
            `floor`, whichever is larger.

    Source: N. J. Higham, *Computing a nearest symmetric positive semidefinite matrix*,
    Linear Algebra Appl. 103 (1988), theorem 2.1.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", PositiveDefinite())
    >>> bool((torch.linalg.eigvalsh(linear.weight) > 0).all())
    True
    """

    constraint = "positive definite"
    triangular = True  # pickles of earlier versions do not have it

    def __init__(
        self, floor: float = 1e-6, *, triangular: bool = True, strict: bool = False
    ) -> None:
        super().__init__(strict=strict)
        check_floor(floor)
        self.floor = floor
        self.triangular = triangular

    def forward(self, X: Tensor) -> Tensor:
        check_square(X, "positive definite")
        F = widened(X).tril() if self.triangular else widened(X)
        return definite(F, self.floor).to(X.dtype)

    def right_inverse(self, Y: Tensor) -> Tensor:
        check_square(Y, "positive definite")
        self.admit(Y)
        return lower_factor(widened(Y), self.floor).to(Y.dtype)

    def deviation(self, Y: Tensor) -> Tensor:
        return torch.maximum(largest_difference(Y, Y.mH), eigenvalues_below(Y, self.floor))

    def tolerance(self, Y: Tensor) -> float:
        return 4 * epsilon(Y) * largest_entry(torch.linalg.matrix_norm(widened(Y))).item()

    def extra_repr(self) -> str:
        shown = f"floor={self.floor}" + ", triangular=False" * (not self.triangular)
        return shown + ", strict=True" * self.strict


def check_floor(floor: float) -> None:
    """Raise an error unless `floor` keeps a matrix from being singular."""
    if not 0 < floor < math.inf:
        raise ValueError(f"floor must be positive and finite. Got floor={floor}.")


def definite(L: Tensor, floor: float) -> Tensor:
    """`L Lᴴ + floor I`."""
    identity = torch.eye(L.shape[-2], dtype=L.dtype, device=L.device)
    return torch.add(matmul(L, L.mH), identity, alpha=floor)


def lower_factor(Y: Tensor, floor: float) -> Tensor:
    """The lower triangular `L` for which `definite(L, floor)` is nearest to `Y`."""
    values, vectors = torch.linalg.eigh(hermitian_part(Y))
    return triangular(vectors * excess(values, floor, nudge=True).sqrt().unsqueeze(-2))


def hermitian_root(values: Tensor, vectors: Tensor, floor: float, *, nudge: bool = False) -> Tensor:
    """The `H` for which `H² + floor I` has these eigenvectors, and eigenvalues nearest to these."""
    return matmul(vectors * excess(values, floor, nudge=nudge).sqrt().unsqueeze(-2), vectors.mH)


def excess(values: Tensor, floor: float, *, nudge: bool = False) -> Tensor:
    """`values - floor`, but at least the rounding error of the values.

    If it were zero, its square root would have no gradient, and the value would stay at the floor
    in training. With `nudge`, values below the floor, which are raised anyway, become
    `sqrt(eps) / 2` times the norm: from there, gradient descent needs half as many steps to leave
    the floor.
    """
    size = torch.linalg.vector_norm(values, dim=-1, keepdim=True).clamp(min=floor)
    eps = epsilon(values)
    if not nudge:
        return torch.maximum(values - floor, eps * size)
    is_below = values < floor - 8 * eps * size
    least = torch.where(is_below, 0.5 * math.sqrt(eps), eps) * size
    return torch.maximum(values - floor, least.to(values.dtype))


def triangular(F: Tensor) -> Tensor:
    """The lower triangular `L` with non-negative diagonal for which `L Lᴴ` is `F Fᴴ`.

    Unlike a Cholesky decomposition, it does not square `F`, and the product may be singular.
    """
    R = torch.linalg.qr(F.mH).R
    diagonal = R.diagonal(dim1=-2, dim2=-1)
    phase = torch.where(diagonal == 0, torch.ones_like(diagonal), diagonal.sgn())
    L: Tensor = (R * phase.conj().unsqueeze(-1)).mH
    return L.contiguous().tril()


def hermitian_part(Y: Tensor) -> Tensor:
    """`(Y + Yᴴ) / 2`, without overflow."""
    return Y + (Y.mH - Y) / 2


def eigenvalues_below(Y: Tensor, floor: float) -> Tensor:
    """How far the smallest eigenvalue of `Y`'s Hermitian part is below `floor`, or zero."""
    values = torch.linalg.eigvalsh(hermitian_part(widened(Y)))
    return largest_entry((floor - values).clamp(min=0))
