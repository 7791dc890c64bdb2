"""Invertible matrices as the product of a stretch, a rotation and a base point."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.orthogonality import renewed, turned_by
from paramdesc.linalg.precision import matmul, widened
from paramdesc.parametrizations.base_point import BasePoint
from paramdesc.parametrizations.spectra.positive_definite import check_floor

__all__ = ["PolarForm", "check_real", "oriented_svd", "parts", "turned"]


class PolarForm(BasePoint):
    """A map to `Y = P Q B` with positive determinant. Subclasses define `stretch` and `root`.

    `P = stretch(H)` is positive definite and `Q = cayley(2 K)` a rotation, with the symmetric
    part `H` and the skew-symmetric part `K` of `X`. `B` is the base point, the rotation in the
    polar form of the matrix that was assigned last.

    Source: N. J. Higham, *Functions of Matrices* (SIAM, 2008), theorem 8.1, for the polar form.
    """

    def __init__(self, floor: float, *, rebase: int | None = 50, strict: bool = False) -> None:
        super().__init__(rebase=rebase, strict=strict)
        check_floor(floor)
        self.floor = floor

    def stretch(self, H: Tensor) -> Tensor:
        """The positive definite factor for a symmetric `H`."""
        raise NotImplementedError

    def root(self, S: Tensor, U: Tensor) -> Tensor:
        """The `H` whose stretch has eigenvectors `U`, and eigenvalues as near to `S` as it can."""
        raise NotImplementedError(f"{type(self).__name__} defines no root().")

    def forward(self, X: Tensor) -> Tensor:
        self.check(X)
        H, K = parts(widened(X))
        Y = turned(self.stretch(H), K)
        base = self.base
        if base is not None:
            Y = matmul(Y, base.clone().to(Y.dtype))
        return Y.to(X.dtype)

    def recenter(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """The symmetric part of `X`, and the rotation `Q B` as base point."""
        H, K = parts(widened(X))
        identity = torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
        Q, base = turned(identity.expand_as(K), K), self.base
        if base is not None:
            Q = matmul(Q, base.to(Q.dtype))
        return H.to(X.dtype), renewed(Q)

    def start(self, Y: Tensor) -> Tensor:
        U, S, Vh = oriented_svd(Y)
        self.base = matmul(U, Vh)
        return self.root(S, U).to(Y.dtype)

    def extra_repr(self) -> str:
        shown = [f"floor={self.floor}", *self.shown_rebase()]
        return ", ".join(shown + ["strict=True"] * self.strict)


def parts(X: Tensor) -> tuple[Tensor, Tensor]:
    """The Hermitian and the skew-Hermitian part of `X`, which is their sum."""
    half = X / 2
    return half + half.mH, half - half.mH


def turned(P: Tensor, K: Tensor) -> Tensor:
    """`P cayley(2 K)` for skew-Hermitian `K`, at the cost of an inverse and a product."""
    return turned_by(P, 2 * K)


def check_real(Y: Tensor, kind: str) -> None:
    """Raise an error for complex matrices; `kind` names the constraint in the message."""
    if Y.is_complex():
        raise ValueError(f"matrices {kind} must be real. Got dtype {Y.dtype}.")


def oriented_svd(Y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`U, S, Vᵀ` of `Y`, or of `Y` with its smallest singular direction reversed.

    The determinant of `U Vᵀ` is one.
    """
    U, S, Vh = torch.linalg.svd(widened(Y))
    sign = torch.linalg.slogdet(matmul(U, Vh)).sign
    signs = torch.ones_like(S)
    signs[..., -1:] = sign.unsqueeze(-1)
    return U * signs.unsqueeze(-2), S, Vh
