"""Matrices whose eigenvalues have negative real parts, for maps to stable matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
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
        WA = matmul(W, A)  # plus half the identity, it is skew-Hermitian
        values, vectors = torch.linalg.eigh(hermitian_part(W))
        X = hermitian_root(1 / values, vectors, self.floor) + (WA - WA.mH) / 2
        return X.to(Y.dtype)

    def tolerance(self, Y: Tensor) -> float:
        return 4 * epsilon(Y) * largest_entry(torch.linalg.matrix_norm(widened(Y))).item()
