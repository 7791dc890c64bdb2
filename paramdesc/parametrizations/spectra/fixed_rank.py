"""Matrices of fixed rank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import epsilon, matmul, widened
from paramdesc.parametrizations.spectra.low_rank import check_positive_rank, check_rank, truncated
from paramdesc.parametrizations.spectra.polar_form import parts, turned
from paramdesc.parametrizations.spectra.positive_definite import check_floor, definite, excess

__all__ = ["FixedRank"]


class FixedRank(Parametrization):
    """`layer.weight` will have rank `rank`, never less: `Y = F G`, with thin factors.

    Let `U` and `V` be orthonormal bases, `m x rank` and `n x rank`, of the ranges of the
    matrix that was assigned last and of its conjugate transpose. Then

    - `F = A + U (C - M)` with `M = Uᴴ A`, so that `Uᴴ F = C`, where `C = P Q` is invertible:
      `P = H² + floor I`, and a rotation `Q = cayley(2 K)`, with the Hermitian part `H` and the
      skew-Hermitian part `K` of `M`;
    - `G = B + (I - B V) Vᴴ`, so that `G V = I`.

    So all singular values of `G` are one at least, and those of `F`, and the `rank` largest
    ones of `Y`, `floor` at least, whatever the originals `A`, `(*, m, rank)`, and `B`,
    `(*, rank, n)`, are. It reaches each matrix of that rank for which those of `Uᴴ Y V` are `floor`
    at least, and its determinant is positive if it is real, but for rotations `Q` by half a
    turn: that is, from nearby, every one whose own are.

    The value is `(*, m, n)`, real or complex; half precision is computed in float32. The cost
    is that of the product, `2 m n rank` operations, and of two such for the gradients; to that
    come `4 (m + n) rank²` and four times `rank³`, and twice that for the gradients.

    Assigning, and registering on a weight, keeps a matrix of that rank whose nonzero singular
    values are `floor` or more, and replaces any other by the nearest such one in the
    Frobenius norm: its truncated singular value decomposition, with smaller values raised to
    `floor`.

    Args:
        rank: the rank, from one to the smaller side of the matrix.
        floor: the smallest that the nonzero singular values may be, positive.
        strict: whether to refuse a matrix that is not in the set instead.

    Raises:
        ValueError: if an argument does not fit; with `strict`, if a matrix of another rank is
            assigned, with its distance from the set in the spectral norm.

    Source: the charts are those of the Grassmann manifold, P.-A. Absil, R. Mahony and
    R. Sepulchre, *Optimization Algorithms on Matrix Manifolds* (Princeton, 2008), section 3.4.

    >>> linear = register_parametrization(torch.nn.Linear(5, 4), "weight", FixedRank(2))
    >>> torch.linalg.matrix_rank(linear.weight).item()
    2
    """

    constraint = "of that rank"
    if TYPE_CHECKING:  # TorchScript takes its type from what it holds
        left: Tensor | None
        right: Tensor | None

    def __init__(self, rank: int, *, floor: float = 1e-6, strict: bool = False) -> None:
        super().__init__(strict=strict)
        check_positive_rank(rank)
        check_floor(floor)
        self.rank = rank
        self.floor = floor
        self.register_buffer("left", None)
        self.register_buffer("right", None)

    def forward(self, A: Tensor, B: Tensor) -> Tensor:
        F, G = widened(A), widened(B)
        left, right = self.left, self.right
        if left is not None and right is not None:
            U, Vh = left.to(F.dtype), right.to(F.dtype)
            M = matmul(U.mH, F)
            H, K = parts(M)
            F = F + matmul(U, turned(definite(H, self.floor), K) - M)
            identity = torch.eye(self.rank, dtype=G.dtype, device=G.device)
            G = G + matmul(identity - matmul(G, Vh.mH), Vh)
        return matmul(F, G).to(A.dtype)

    @torch.inference_mode(False)  # a base made there could not be trained on elsewhere
    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        check_rank(Y, self.rank)
        self.admit(Y)
        U, S, Vh = truncated(Y, self.rank)
        self.left, self.right = U.to(Y.dtype).contiguous(), Vh.to(Y.dtype).contiguous()
        A = U * excess(S, self.floor).sqrt().unsqueeze(-2)
        return A.to(Y.dtype).contiguous(), torch.zeros_like(self.right)

    def deviation(self, Y: Tensor) -> Tensor:
        S = torch.linalg.svdvals(widened(Y))
        below = largest_entry((self.floor - S[..., : self.rank]).clamp(min=0))
        return torch.maximum(below, largest_entry(S[..., self.rank :]))

    def tolerance(self, Y: Tensor) -> float:
        roundings = 4 + math.sqrt(sum(Y.shape[-2:]))
        return roundings * epsilon(Y) * largest_entry(torch.linalg.matrix_norm(widened(Y))).item()

    def extra_repr(self) -> str:
        return f"rank={self.rank}, floor={self.floor}" + ", strict=True" * self.strict
