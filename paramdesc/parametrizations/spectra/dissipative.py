"""Matrices whose eigenvalues have negative real parts, for maps to stable matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.lyapunov import solve_lyapunov
from paramdesc.linalg.precision import epsilon, in_double, matmul, widened
from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.spectra.polar_form import parts
from paramdesc.parametrizations.spectra.positive_definite import (
    check_floor,
    definite,
    hermitian_part,
    hermitian_root,
)
from paramdesc.torch_internals.placeholders import is_placeholder

__all__ = ["Dissipative"]


class Dissipative(Parametrization):
    """A map to stable matrices through `A = P (K - I / 2)`, whose eigenvalues have real part < 0.

    `P = H² + floor I`, where `H` and `K` are the Hermitian and the skew-Hermitian part of
    `X = H + K`. Subclasses define `place`, which maps `A` to the value, and `solve`.

    Source: G.-R. Duan and R. J. Patton, *A note on Hurwitz stability of matrices*, Automatica
    34 (1998).
    """

    def __init__(self, floor: float, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        check_floor(floor)
        self.floor = floor

    def place(self, A: Tensor) -> Tensor:
        """The value for this `A`."""
        raise NotImplementedError

    def solve(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        """The `A` of `Y`, made stable if it is not, and the `W` with `Aᴴ W + W A = -I`."""
        raise NotImplementedError(f"{type(self).__name__} defines no solve().")

    def forward(self, X: Tensor) -> Tensor:
        check_square(X, "stable")
        H, K = parts(widened(X))
        P = definite(H, self.floor)
        return self.place(torch.sub(matmul(P, K), P, alpha=0.5)).to(X.dtype)

    def right_inverse(self, Y: Tensor) -> Tensor:
        check_square(Y, "stable")
        self.admit(Y)
        if is_placeholder(Y):
            return Y.new_empty(Y.shape)
        A, W = self.solve(in_double(Y))
        W = hermitian_part(W)
        values, vectors = torch.linalg.eigh(W)
        P = matmul(vectors / values.unsqueeze(-2), vectors.mH)
        P, K = corrected(A, P, skew_part(matmul(W, A)), W)
        values, vectors = torch.linalg.eigh(hermitian_part(P))
        return (hermitian_root(values, vectors, self.floor) + K).to(Y.dtype)

    def tolerance(self, Y: Tensor) -> float:
        return 4 * epsilon(Y) * largest_entry(torch.linalg.matrix_norm(widened(Y))).item()


def skew_part(X: Tensor) -> Tensor:
    """The skew-Hermitian part, which `W A` is, up to half the identity."""
    return (X - X.mH) / 2


def corrected(A: Tensor, P: Tensor, K: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
    """`P` and `K` after one step of Newton's method for `P (K - I / 2) = A`.

    The inverse of `W` loses as many digits as the condition number of `W` has. What the product
    lacks of `A` is known to more digits, and the step asks for another Lyapunov equation. Matrices
    that the step does not bring closer stay: these equations are too ill-conditioned for it.
    """

    def lacking(P: Tensor, K: Tensor) -> Tensor:
        return A - torch.sub(matmul(P, K), P, alpha=0.5)

    D = lacking(P, K)
    WD = matmul(W, D)
    dW = solve_lyapunov(A, WD + WD.mH)
    P_next = P - hermitian_part(matmul(matmul(P, dW), P))
    K_next = K + skew_part(WD + matmul(dW, A))
    before = torch.linalg.matrix_norm(D, keepdim=True)
    after = torch.linalg.matrix_norm(lacking(P_next, K_next), keepdim=True)
    is_closer = after < before
    return torch.where(is_closer, P_next, P), torch.where(is_closer, K_next, K)
