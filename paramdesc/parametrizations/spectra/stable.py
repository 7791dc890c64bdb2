"""Matrices of stable linear systems, in continuous and discrete time."""

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
    """Keep the real parts of the eigenvalues of `layer.weight` below `-margin`.

    `Y = P (K - I / 2) - margin I` with `P = H² + floor I`, where `H` and `K` are the Hermitian and
    the skew-Hermitian part of `X = H + K`. So `x' = Y x` decays, faster than `exp(-margin t)`. The
    inverse of `P` solves the Lyapunov equation `Aᴴ W + W A = -I` of `A = Y + margin I`: each such
    matrix has one `P` and one `K`, and all are reached except those whose `P` has eigenvalues less
    than `floor`. The real parts are at most `-margin - floor / 2`, up to rounding. For a matrix far
    from normal, rounding changes the eigenvalues more than the entries; choose `margin` to allow
    for it.

    Shapes `(*, n, n) -> (*, n, n)`, real and complex; half precision is computed in float32.
    The cost is two products of `n x n` matrices, and four for the gradient.

    Assignment and registration keep a stable matrix. The spectrum of any other is shifted: it
    becomes `A - s I`, where `s` moves the largest real part to `-margin` minus a hundredth of the
    spectral radius, or minus ten times `floor` if that is more. (The nearest stable matrix has no
    closed form.) The equation is solved in double precision and the result corrected once, with
    190 products, two inverses and the eigenvalues. Where it is ill-conditioned, for weakly damped
    oscillations or matrices far from normal, the value is also ill-conditioned as a function of
    `X`.

    Args:
        margin: the smallest distance of the real parts from zero, zero or positive.
        floor: the smallest allowed eigenvalue of `P`, positive.
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
    """Keep the spectral radius of `layer.weight` below `bound`.

    `Y = bound (I + A) (I - A)⁻¹`, with `A = P (K - I / 2)` as in `HurwitzStable`. So, with
    `bound=1`, `x[t + 1] = Y x[t]` decays. The norm `|Y x|` is not bounded and can be large. Each
    matrix with such a spectral radius has one `P` and one `K`, and all are reached except those
    whose `P` has eigenvalues less than `floor`. As in `HurwitzStable`, rounding moves the
    eigenvalues of matrices far from normal; choose a smaller `bound` to allow for it.

    Shapes `(*, n, n) -> (*, n, n)`, real and complex; half precision is computed in float32.
    The cost is two products of `n x n` matrices and an inverse, and six products for the
    gradient.

    Assignment and registration keep a stable matrix and scale any other to the spectral radius
    `0.99 bound`. A stable matrix is scaled too if its eigenvalues are closer to `bound` than
    `floor` times `bound`. (The nearest stable matrix has no closed form.) As in `HurwitzStable`, a
    matrix equation is solved in double precision.

    Args:
        bound: the upper bound of the spectral radius, positive.
        floor: the smallest allowed eigenvalue of `P`, positive.
        strict: whether to reject a matrix that is not stable instead of replacing it.

    Raises:
        ValueError: if the matrices are not square, or an argument is out of its range; with
            `strict`, if an assigned matrix is not stable; the error's `deviation` is the amount by
            which its spectral radius exceeds `bound`.

    Source: see `HurwitzStable`; the Cayley transform maps the left half-plane to the unit disk.

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
