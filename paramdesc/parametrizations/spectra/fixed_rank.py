"""Matrices with a fixed rank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import epsilon, matmul, widened
from paramdesc.parametrizations.base_point import check_rebase, shown_rebase
from paramdesc.parametrizations.spectra.low_rank import check_positive_rank, check_rank, truncated
from paramdesc.parametrizations.spectra.polar_form import parts, turned
from paramdesc.parametrizations.spectra.positive_definite import check_floor, definite, excess

__all__ = ["FixedRank"]


class FixedRank(Parametrization):
    """Give `layer.weight` exactly rank `rank`: `Y = F G`, with thin factors.

    Let `U` and `V` be orthonormal bases, `m x rank` and `n x rank`, of the ranges of a base point,
    a matrix of the set, and of its conjugate transpose, and `D` the roots of its singular values.
    Then, for the originals `A`, `(*, m, rank)`, and `B`, `(*, rank, n)`, with `M = Uᴴ A`:

    - `F = (A - U M) D + U C`, so that `Uᴴ F = C`, where `C = P Q` is invertible:
      `P = H² + floor I`, and a rotation `Q = cayley(2 K)`. `H` is half the Hermitian part of `M`,
      and `K` its skew-Hermitian part, with the entry `i, j` divided by `d_i + d_j`;
    - `G = D⁻¹ (B - B V Vᴴ) + Vᴴ`, so that `G V = I`.

    So, for any originals, all singular values of `G` are at least one, and those of `F` and the
    `rank` largest ones of `Y` are at least `floor`. The map reaches each matrix of this rank for
    which the singular values of `Uᴴ Y V` are at least `floor` and, if real, its determinant is
    positive, except for rotations `Q` by half a turn. So it reaches every nearby matrix whose
    nonzero singular values are at least `floor`. The base point moves to the value every `rebase`
    steps, so training can reach all others too.

    Near the base point, a step along any tangent has the same length as in `LowRank`. So the same
    learning rates work, and training takes the same number of steps.

    The value is `(*, m, n)`, real or complex; half precision is computed in float32. The cost is
    that of the product, `2 m n rank` operations, and twice that for the gradients, plus
    `4 (m + n) rank²` and four times `rank³`, and twice that for the gradients.

    Assignment and registration keep a matrix of this rank whose nonzero singular values are at
    least `floor`, and replace any other with the nearest such matrix in the Frobenius norm: its
    truncated singular value decomposition, with smaller values raised to `floor`. The value becomes
    the base point.

    A checkpoint from an earlier version, which has no `D`, keeps its value. Until a value is
    assigned, the formulas use `D = I`, and `H` and `K` are twice as large.

    Args:
        rank: the rank, from one to the smaller side of the matrix.
        floor: the smallest allowed nonzero singular value, positive.
        rebase: the number of training steps after which the base point moves; None for never.
        strict: whether to reject a matrix that is not in the set instead of replacing it.

    Raises:
        ValueError: if an argument does not fit; with `strict`, if an assigned matrix is not in the
            set; the error's `deviation` is its distance from the set in the spectral norm.

    Source: for the charts, which are those of the Grassmann manifold, P.-A. Absil, R. Mahony and R.
    Sepulchre, *Optimization Algorithms on Matrix Manifolds* (Princeton, 2008), section 3.4; for the
    scales, which balance the factors, B. Mishra, G. Meyer, S. Bonnabel and R. Sepulchre,
    *Fixed-rank matrix factorizations and Riemannian low-rank optimization*, Comput. Stat. 29
    (2014), section 3.

    >>> linear = register_parametrization(torch.nn.Linear(5, 4), "weight", FixedRank(2))
    >>> torch.linalg.matrix_rank(linear.weight).item()
    2
    """

    constraint = "of the given rank"
    base_point = ("left", "right", "scale")
    batching = "leading"
    if TYPE_CHECKING:  # TorchScript takes its type from what it holds
        left: Tensor | None
        right: Tensor | None
        scale: Tensor | None

    def __init__(
        self, rank: int, *, floor: float = 1e-6, rebase: int | None = 50, strict: bool = False
    ) -> None:
        super().__init__(strict=strict)
        check_positive_rank(rank)
        check_floor(floor)
        check_rebase(rebase)
        self.rebase = rebase
        self.rank = rank
        self.floor = floor
        self.register_buffer("left", None)
        self.register_buffer("right", None)
        self.register_buffer("scale", None)

    def forward(self, A: Tensor, B: Tensor) -> Tensor:
        F, G = self.factors(widened(A), widened(B))
        return matmul(F, G).to(A.dtype)

    def factors(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """`F` and `G`."""
        left, right, scale = self.left, self.right, self.scale
        if left is None or right is None:
            return A, B
        # the base point is written to while graphs of earlier evaluations exist
        U, Vh = left.clone().to(A.dtype), right.clone().to(A.dtype)
        M = matmul(U.mH, A)
        H, K = parts(M)
        F = A - matmul(U, M)
        G = B - matmul(matmul(B, Vh.mH), Vh)
        if scale is not None:
            D = scale.clone().to(A.dtype)
            F, G = F * D.unsqueeze(-2), G / D.unsqueeze(-1)
            H, K = H / 2, K / (D.unsqueeze(-2) + D.unsqueeze(-1))
        return F + matmul(U, turned(definite(H, self.floor), K)), G + Vh

    @torch.inference_mode(False)  # a base made there could not be trained on elsewhere
    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        check_rank(Y, self.rank)
        self.admit(Y)
        A, B, left, right, scale = self.centered(*truncated(Y, self.rank), Y)
        self.left, self.right, self.scale = left, right, scale
        return A, B

    def recenter(self, A: Tensor, B: Tensor) -> tuple[Tensor, ...]:
        """The originals and the base point at the value, from its singular value decomposition."""
        F, G = self.factors(widened(A), widened(B))
        Q, R = torch.linalg.qr(F)
        P, T = torch.linalg.qr(G.mH)
        core = matmul(R, T.mH)
        is_finite = torch.isfinite(core).all(-1, keepdim=True).all(-2, keepdim=True)
        U, S, Vh = torch.linalg.svd(torch.where(is_finite, core, 0.0))  # raises otherwise
        S = torch.where(is_finite.squeeze(-1), S, math.nan)
        return self.centered(matmul(Q, U), S, matmul(Vh, P.mH), A)

    def centered(self, U: Tensor, S: Tensor, Vh: Tensor, like: Tensor) -> tuple[Tensor, ...]:
        """Originals with this value, followed by the base point, which is the value too."""
        dtype, base_dtype = like.dtype, widened(like).dtype
        A = 2 * U * excess(S, self.floor).sqrt().unsqueeze(-2)
        B = torch.zeros_like(Vh, dtype=dtype, memory_format=torch.contiguous_format)
        least = S[..., :1] / 100  # a small scale would amplify what grows from it
        scale = torch.where(least > 0, torch.maximum(S, least), 1.0).sqrt()
        left, right = U.to(base_dtype).contiguous(), Vh.to(base_dtype).contiguous()
        return A.to(dtype).contiguous(), B, left, right, scale.to(widened(like).real.dtype)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        left = state_dict.get(f"{prefix}left")
        if left is not None:  # a state_dict of an earlier version has no scale
            scale, given = self.scale, state_dict.get(f"{prefix}scale")
            if given is None:
                self.scale = None
            elif scale is None:
                self.scale = torch.empty_like(given, device=left.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._buffers.setdefault("scale", None)  # a pickle of an earlier version has none

    def deviation(self, Y: Tensor) -> Tensor:
        S = torch.linalg.svdvals(widened(Y))
        below = largest_entry((self.floor - S[..., : self.rank]).clamp(min=0))
        return torch.maximum(below, largest_entry(S[..., self.rank :]))

    def tolerance(self, Y: Tensor) -> float:
        roundings = 4 + math.sqrt(sum(Y.shape[-2:]))
        return roundings * epsilon(Y) * largest_entry(torch.linalg.matrix_norm(widened(Y))).item()

    def extra_repr(self) -> str:
        shown = [f"rank={self.rank}, floor={self.floor}", *shown_rebase(self)]
        return ", ".join(shown + ["strict=True"] * self.strict)
