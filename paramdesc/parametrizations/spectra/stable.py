"""Matrices of stable linear systems, in continuous and in discrete time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.lyapunov import solve_lyapunov, solve_stein
from paramdesc.linalg.precision import matmul, widened
from paramdesc.linalg.solving import invert
from paramdesc.parametrizations.spectra.dissipative import Dissipative

__all__ = ["HurwitzStable", "SchurStable"]

NUDGE = 0.01


class HurwitzStable(Dissipative):
    """`layer.weight` will have eigenvalues of real part less than `-margin`.

    `Y = P (K - I / 2) - margin I` with `P = H² + floor I`, where `H` and `K` are the Hermitian
    and the skew-Hermitian part of `X = H + K`. So `x' = Y x` decays, faster than
    `exp(-margin t)`. The inverse of `P` solves the Lyapunov equation `Aᴴ W + W A = -I` of
    `A = Y + margin I`: each such matrix has one `P` and one `K`, and all are reached but for
    those with eigenvalues of `P` less than `floor`. The real parts are `-margin - floor / 2`
    at most, up to rounding: to the entries of a matrix that is far from normal it is little,
    and to its eigenvalues more. The margin is what to meet it with.

    Shapes `(*, n, n) -> (*, n, n)`, real and complex; half precision is computed in float32.
    The cost is two products of `n x n` matrices, and four for the gradient.

    Assignment and registration keep a stable matrix. Of any other the spectrum is moved: it becomes
    `A - s I`, with the `s` that takes the largest real part to `-margin` minus a hundredth of the
    spectral radius, or ten times `floor` if that is more. The nearest stable matrix would be a
    problem without a closed form. The equation is solved in double precision, by 90 products, an
    inverse and the eigenvalues. Where it is ill-conditioned, for eigenvalues near the bound or far
    from normal matrices, so is the value in terms of `X`.

    Args:
        margin: how far the real parts are from zero at least, not negative.
        floor: the smallest eigenvalue of `P` that is allowed, positive.
        strict: whether to reject a matrix that is not stable instead of replacing it.

    Raises:
        ValueError: if the matrices are not square, or an argument is out of its range; with
            `strict`, if an assigned matrix is not stable; the error's `deviation` is the largest
            real part of its eigenvalues plus `margin`.

    Source: G.-R. Duan and R. J. Patton, *A note on Hurwitz stability of matrices*, Automatica
    34 (1998), for the form of all stable matrices.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", HurwitzStable(0.1))
    >>> bool((torch.linalg.eigvals(linear.weight).real < -0.1).all())
    True
    """

    constraint = "stable"

    def __init__(self, margin: float = 0.0, *, floor: float = 1e-6, strict: bool = False) -> None:
        super().__init__(floor, strict=strict)
        if not 0 <= margin < math.inf:
            raise ValueError(f"margin must be finite and not negative. Got margin={margin}.")
        self.margin = margin

    def place(self, A: Tensor) -> Tensor:
        if self.margin > 0:
            return A - self.margin * torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        return A

    def solve(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        identity = torch.eye(Y.shape[-1], dtype=Y.dtype, device=Y.device)
        A = Y + self.margin * identity
        values = torch.linalg.eigvals(A)
        largest, radius = values.real.amax(-1), values.abs().amax(-1)
        goal = -torch.clamp(NUDGE * radius, min=10 * self.floor)
        shift = torch.where(largest > -self.floor, goal - largest, torch.zeros_like(goal))
        A = A + shift[..., None, None] * identity
        return A, solve_lyapunov(A)

    def deviation(self, Y: Tensor) -> Tensor:
        values = torch.linalg.eigvals(widened(Y)).real
        return largest_entry((values + self.margin).clamp(min=0))

    def extra_repr(self) -> str:
        return f"margin={self.margin}, floor={self.floor}" + ", strict=True" * self.strict


class SchurStable(Dissipative):
    """`layer.weight` will have spectral radius less than `bound`.

    `Y = bound (I + A) (I - A)⁻¹`, with `A = P (K - I / 2)` as in `HurwitzStable`. So, with
    `bound=1`, `x[t + 1] = Y x[t]` decays. Norms may be large all the same: this does not bound
    `|Y x|`. Each matrix of such spectral radius has one `P` and one `K`, and all are reached
    but for those with eigenvalues of `P` less than `floor`. As in `HurwitzStable`, rounding
    moves eigenvalues of matrices far from normal: a smaller bound is what to meet it with.

    Shapes `(*, n, n) -> (*, n, n)`, real and complex; half precision is computed in float32.
    The cost is two products of `n x n` matrices and an inverse, and six products for the
    gradient.

    Assignment and registration keep a stable matrix and scale any other to the spectral radius
    `0.99 bound`; so it does if the eigenvalues are closer to `bound` than `floor` times that. The
    nearest stable matrix would be a problem without a closed form. As for `HurwitzStable`, a matrix
    equation is solved in double precision.

    Args:
        bound: the bound of the spectral radius, positive.
        floor: the smallest eigenvalue of `P` that is allowed, positive.
        strict: whether to reject a matrix that is not stable instead of replacing it.

    Raises:
        ValueError: if the matrices are not square, or an argument is out of its range; with
            `strict`, if an assigned matrix is not stable, with what its spectral radius exceeds
            `bound` by.

    Source: as for `HurwitzStable`, and the Cayley transform, which takes the left half plane
    to the unit disc.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", SchurStable())
    >>> bool((torch.linalg.eigvals(linear.weight).abs() < 1).all())
    True
    """

    constraint = "of spectral radius less than the bound"

    def __init__(self, bound: float = 1.0, *, floor: float = 1e-6, strict: bool = False) -> None:
        super().__init__(floor, strict=strict)
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be positive and finite. Got bound={bound}.")
        self.bound = bound

    def place(self, A: Tensor) -> Tensor:
        identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        M = invert(identity - A)
        return 2 * self.bound * M - self.bound * identity

    def solve(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        Z = Y / self.bound
        radius = torch.linalg.eigvals(Z).abs().amax(-1)[..., None, None]
        Z = torch.where(radius > 1 - self.floor, (1 - NUDGE) / radius, torch.ones_like(radius)) * Z
        identity = torch.eye(Z.shape[-1], dtype=Z.dtype, device=Z.device)
        W = solve_stein(Z, matmul((Z + identity).mH, Z + identity) / 2)
        return identity - 2 * torch.linalg.inv_ex(Z + identity)[0], W

    def deviation(self, Y: Tensor) -> Tensor:
        radii = torch.linalg.eigvals(widened(Y)).abs()
        return largest_entry((radii - self.bound).clamp(min=0))

    def extra_repr(self) -> str:
        return f"bound={self.bound}, floor={self.floor}" + ", strict=True" * self.strict
