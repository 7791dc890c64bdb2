"""Invertible matrices that keep orientation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.cayley import divide
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import epsilon, matmul, widened
from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.spectra.positive_definite import (
    check_floor,
    definite,
    hermitian_root,
)

__all__ = ["PositiveDeterminant", "check_real", "oriented_svd", "parts", "turned"]


class PositiveDeterminant(Parametrization):
    """`layer.weight` will be invertible, of positive determinant: `Y = P Q B`, a polar form.

    `B` is the rotation of the matrix that was assigned last. `Q = cayley(2 K)` turns it further,
    and `P = H² + floor I` stretches, with the symmetric part `H` and the skew-symmetric part
    `K` of `X = H + K`. The singular values of `Y` are `floor` at least, up to rounding. It
    reaches every matrix of such singular values and positive determinant, but for those with a
    rotation half a turn away from `B` in some plane: and these too, from closer by.

    Shapes `(*, n, n) -> (*, n, n)`, real; half precision is computed in float32. The cost is
    four products of `n x n` matrices, one of them for an inverse, and five for the gradient.

    Assigning, and registering on a weight, keeps a matrix of positive determinant. One of
    negative determinant has the direction of its smallest singular value turned over, which
    keeps the singular values; then singular values less than `floor` are raised to it.

    Args:
        floor: the smallest singular value that is allowed, positive.
        strict: whether to refuse a matrix that is not in the set instead.

    Raises:
        ValueError: if the matrices are not square or not real, or `floor` is not positive;
            with `strict`, if the determinant of one that is assigned is not positive, or a
            singular value is too small, with its distance from the set in the spectral norm.

    Source: N. J. Higham, *Functions of Matrices* (SIAM, 2008), theorem 8.1, for the polar form.

    >>> linear = torch.nn.Linear(3, 3)
    >>> linear = register_parametrization(linear, "weight", PositiveDeterminant())
    >>> bool(torch.linalg.det(linear.weight) > 0)
    True
    """

    constraint = "of positive determinant"
    if TYPE_CHECKING:  # TorchScript takes its type from what it holds
        base: Tensor | None

    def __init__(self, floor: float = 1e-6, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        check_floor(floor)
        self.floor = floor
        self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        check_square(X, "invertible")
        H, K = parts(widened(X))
        Y = turned(definite(H, self.floor), K)
        base = self.base
        if base is not None:
            Y = matmul(Y, base.to(Y.dtype))
        return Y.to(X.dtype)

    @torch.inference_mode(False)  # a base made there could not be trained on elsewhere
    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> Tensor:
        check_square(Y, "invertible")
        check_real(Y, "of positive determinant")
        self.admit(Y)
        U, S, Vh = oriented_svd(Y)
        self.base = matmul(U, Vh).to(Y.dtype)
        return hermitian_root(S, U, self.floor).to(Y.dtype)

    def deviation(self, Y: Tensor) -> Tensor:
        W = widened(Y)
        smallest = torch.linalg.svdvals(W)[..., -1:]
        signed = torch.where(torch.linalg.slogdet(W).sign.unsqueeze(-1) < 0, -smallest, smallest)
        return largest_entry((self.floor - signed).clamp(min=0))

    def tolerance(self, Y: Tensor) -> float:
        return 4 * epsilon(Y) * largest_entry(torch.linalg.matrix_norm(widened(Y))).item()

    def extra_repr(self) -> str:
        return f"floor={self.floor}" + ", strict=True" * self.strict


def parts(X: Tensor) -> tuple[Tensor, Tensor]:
    """The Hermitian and the skew-Hermitian part of `X`, their sum."""
    half = X / 2
    return half + half.mH, half - half.mH


def turned(P: Tensor, K: Tensor) -> Tensor:
    """`P cayley(2 K)`, for skew-Hermitian `K`, at the price of an inverse and a product."""
    identity = torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
    return 2 * divide(P, identity - K) - P


def check_real(Y: Tensor, kind: str) -> None:
    """Refuse complex matrices; `kind` says what real ones were to be."""
    if Y.is_complex():
        raise ValueError(f"matrices {kind} are real. Got dtype {Y.dtype}.")


def oriented_svd(Y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`U, S, Vᵀ` of `Y`, or of `Y` with its smallest singular direction turned over.

    The determinant of `U Vᵀ` is one.
    """
    U, S, Vh = torch.linalg.svd(widened(Y))
    sign = torch.linalg.slogdet(matmul(U, Vh)).sign
    signs = torch.ones_like(S)
    signs[..., -1:] = sign.unsqueeze(-1)
    return U * signs.unsqueeze(-2), S, Vh
