"""Symplectic matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.polar import nearest_orthonormal
from paramdesc.linalg.precision import epsilon, in_double, matmul, widened
from paramdesc.linalg.solving import solve_lower, solve_upper
from paramdesc.parametrizations.base_point import BasePoint
from paramdesc.parametrizations.structure.hamiltonian import check_even, symplectic_adjoint
from paramdesc.parametrizations.structure.symmetric import symmetric
from paramdesc.torch_internals.placeholders import is_placeholder

__all__ = ["Symplectic"]

NEWTON_STEPS = 15


class Symplectic(BasePoint):
    """Make `layer.weight` symplectic: `Yᵀ J Y = J` with `J = [[0, I], [-I, 0]]`.

    With the blocks `[[P, Q], [R, _]]` of `X`, `Y` is the product of

    - the base point `base`, a symplectic matrix,
    - `[[I, 0], [C, I]]`, where `C` is symmetric with the upper triangle of `R`,
    - `[[G, 0], [0, G⁻ᵀ]]`, where `G = (I + tril(P, -1)) exp(diag P) (I + triu(P, 1))`,
    - `[[I, B], [0, I]]`, where `B` is symmetric with the upper triangle of `Q`.

    Every `X` gives a symplectic matrix, and no inverse can fail. There are `2n² + n` free entries,
    which is the dimension of the symplectic group. At zero, `Y` is `base` and can move in all
    directions.

    Shapes `(*, 2n, 2n) -> (*, 2n, 2n)`, floating point or complex; the transpose is not
    conjugated. Half precision is computed in float32. Cost: two products of this size.

    Assignment and registration make the value the `base`, and set `X` to zero. A symplectic matrix
    is kept as it is. Any other is replaced by the nearer of two matrices, because the nearest one
    has no closed form: its generalized polar factor `A (A* A)^(-1/2)` with the adjoint
    `A* = J⁻¹ Aᵀ J`, if Newton's iteration finds it, and the nearest matrix that is both symplectic
    and orthogonal, or, if complex, the nearest unitary `[[U, 0], [0, Ū]]`. This takes about 15
    inverses in double precision.

    Args:
        rebase: the number of training steps after which the base point moves; None for never.
        strict: whether to reject a matrix that is not symplectic instead of replacing it.

    Raises:
        ValueError: if the matrices are not square of even size; with `strict`, if an assigned
            matrix is not symplectic; the error's `deviation` is the largest entry of `Yᵀ J Y - J`.

    Source: F. Dopico, C. Johnson, *Parametrization of the matrix symplectic group and
    applications*, SIAM J. Matrix Anal. Appl. 31 (2009), section 3; for the polar factor, N. Higham,
    D. Mackey, N. Mackey, F. Tisseur, *Computing the polar decomposition and the matrix sign
    decomposition in matrix groups*, SIAM J. Matrix Anal. Appl. 25 (2004).

    >>> linear = register_parametrization(torch.nn.Linear(2, 2), "weight", Symplectic())
    >>> round(torch.linalg.det(linear.weight).item(), 4)
    1.0
    """

    constraint = "symplectic"
    batching = "leading"

    def __init__(self, *, rebase: int | None = 50, strict: bool = False) -> None:
        super().__init__(rebase=rebase, strict=strict)

    def check(self, X: Tensor) -> None:
        check_even(X, "symplectic")

    def forward(self, X: Tensor) -> Tensor:
        self.check(X)
        return self.evaluate(widened(X)).to(X.dtype)

    def evaluate(self, X: Tensor) -> Tensor:
        """The value, in the dtype of `X`."""
        Y, base = from_blocks(X), self.base
        return Y if base is None else matmul(base.clone().to(Y.dtype), Y)

    def recenter(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Zero, with the value as base point after a Newton step for `Yᵀ J Y = J`."""
        Y = self.evaluate(widened(X))
        excess = matmul(symplectic_adjoint(Y), Y)
        excess.diagonal(0, -2, -1).sub_(1)
        return torch.zeros_like(X), Y - matmul(Y, excess) / 2

    def extra_repr(self) -> str:
        return ", ".join(self.shown_rebase() + ["strict=True"] * self.strict)

    def start(self, Y: Tensor) -> Tensor:
        if is_placeholder(Y):
            self.base = widened(Y).clone()
            return torch.zeros_like(Y)
        wide = in_double(Y)
        is_kept = residual(wide) <= 20 * epsilon(Y) * scale(wide)
        base = torch.where(is_kept[..., None, None], wide, nearby(wide))
        self.base = base.to(widened(Y).dtype)
        return torch.zeros_like(Y)

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest entry of `Yᵀ J Y - J`."""
        return largest_entry(residual(widened(Y)))

    def tolerance(self, Y: Tensor) -> float:
        return 20 * epsilon(Y) * largest_entry(scale(widened(Y))).item()


def from_blocks(X: Tensor) -> Tensor:
    """The symplectic matrix of the three factors that `X` holds."""
    n = X.shape[-1] // 2
    P, B, C = X[..., :n, :n], symmetric(X[..., :n, n:]), symmetric(X[..., n:, :n])
    eye = torch.eye(n, dtype=X.dtype, device=X.device)
    L, U = P.tril(-1) + eye, P.triu(1) + eye
    D = P.diagonal(0, -2, -1).exp()
    G = matmul(L * D.unsqueeze(-2), U)
    # G⁻ᵀ = L⁻ᵀ D⁻¹ U⁻ᵀ
    inverse = solve_lower(U.mT, eye.expand_as(U), unitriangular=True)
    inverse = inverse / D.unsqueeze(-1)
    inverse = solve_upper(L.mT, inverse, unitriangular=True)
    top = torch.cat([G, matmul(G, B)], -1)
    bottom = matmul(C, top) + torch.nn.functional.pad(inverse, (n, 0))
    return torch.cat([top, bottom], -2)


def residual(Y: Tensor) -> Tensor:
    """The largest entry of `Yᵀ J Y - J` of each matrix: its adjoint times itself is one."""
    n = Y.shape[-1]
    if n == 0:
        return Y.new_zeros(Y.shape[:-2]).abs()
    eye = torch.eye(n, dtype=Y.dtype, device=Y.device)
    return (matmul(symplectic_adjoint(Y), Y) - eye).abs().amax((-2, -1))


def scale(Y: Tensor) -> Tensor:
    """The largest squared column length of each matrix, which scales rounding errors."""
    squares = (Y * Y.conj()).real.sum(-2) if Y.is_complex() else Y.square().sum(-2)
    return squares.amax(-1) if Y.shape[-1] > 0 else squares.sum(-1)


def nearby(Y: Tensor) -> Tensor:
    """A symplectic matrix near each `Y`: the nearer of two candidates."""
    W, compact = generalised_polar(Y), nearest_unitary(Y)
    is_symplectic = residual(W) <= 1000 * epsilon(Y) * scale(W)
    is_nearer = distance(W, Y) <= distance(compact, Y)
    return torch.where((is_symplectic & is_nearer)[..., None, None], W, compact)


def distance(A: Tensor, B: Tensor) -> Tensor:
    result: Tensor = torch.linalg.matrix_norm(A - B)
    return result


def generalised_polar(Y: Tensor) -> Tensor:
    """The symplectic `W` in `Y = W S`, where `S` is its own adjoint, or something not symplectic.

    There is none if the product of `Y` with its adjoint has negative eigenvalues.
    """
    W = Y
    for _ in range(NEWTON_STEPS):
        inverse = symplectic_adjoint(torch.linalg.inv_ex(W).inverse)
        # as long as Y is far from symplectic, the two are made alike in size
        balance = torch.linalg.matrix_norm(inverse) / torch.linalg.matrix_norm(W)
        balance = balance.sqrt()[..., None, None]
        W = (W * balance + inverse / balance) / 2
    return W


def nearest_unitary(Y: Tensor) -> Tensor:
    """The nearest `[[A, B], [-B, A]]` with unitary `A + iB`, or `[[U, 0], [0, Ū]]` if complex."""
    n = Y.shape[-1] // 2
    A = (Y[..., :n, :n] + Y[..., n:, n:].conj()) / 2
    if Y.is_complex():
        A = nearest_orthonormal(A)
        B = torch.zeros_like(A)
    else:
        unitary = nearest_orthonormal(torch.complex(A, (Y[..., :n, n:] - Y[..., n:, :n]) / 2))
        A, B = unitary.real, unitary.imag
    top, bottom = torch.cat([A, B], -1), torch.cat([-B, A.conj()], -1)
    return torch.cat([top, bottom], -2)
