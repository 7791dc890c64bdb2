"""Orthogonal and unitary matrices, and rectangular ones with orthonormal columns or rows.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Move
from paramdesc.linalg.exponential import exponential, skew_exp
from paramdesc.linalg.householder import householder_like, reflect, reflectors
from paramdesc.linalg.orthogonality import (
    cayley_from,
    is_orthonormal,
    renewed,
    skew_part,
    split,
    turned,
)
from paramdesc.linalg.polar import nearest_orthonormal, polar
from paramdesc.linalg.precision import matmul, widened
from paramdesc.linalg.shapes import check_matrix
from paramdesc.parametrizations.orthogonality.tall import TallMatrices, base_like
from paramdesc.torch_internals.mode import has_numbers
from paramdesc.torch_internals.placeholders import is_placeholder

__all__ = ["Orthogonal"]

MAPS = ("cayley", "matrix_exp", "householder", "polar")
SMALLEST_GAP = 0.04
"""What eigenvalues must keep from -1, lest the inverse of a map is inaccurate."""


class Orthogonal(TallMatrices):
    """Make `layer.weight` orthogonal: `Yᴴ Y = I`, or `Y Yᴴ = I` if it has fewer rows.

    Shapes `(*, m, n) -> (*, m, n)`. Complex matrices become unitary. Half precision is computed in
    float32. A wide matrix is the conjugate transpose of a tall one, which has size `n x k` below.
    There are four maps to choose from:

    - `"cayley"`, the fastest by far: `B (I + A / 2) (I - A / 2)⁻¹` with `A = (X - Xᴴ) / 2` if `X`
      is square, where the base point `B` is the value of a zero original; otherwise the same
      transform along the tangent at `B` nearest to `X`. To first order the value is `B` plus that
      tangent, so learning rates mean the same as without a parametrization.
    - `"matrix_exp"`: the same with `exp(A)`, which follows geodesics if `X` is square. On a GPU the
      value is NaN if the norm of `A` is above 3000, or 1100 in double precision.
    - `"householder"`: the product of `k` reflections, whose vectors are the columns of `X` below
      the diagonal, times signs; the diagonal of `X` holds the phases of complex columns. It is
      multiplied by the reflections that give the base point `B`, the value of a zero original.
    - `"polar"`: the nearest orthogonal matrix to `X`, computed with matrix products alone; the
      scale of `X` has no effect. On a GPU and in compiled code the value is NaN if the condition
      number of `X` is far above 1e6, or 1e12 in double precision. A zero matrix gives the identity.

    Assignment and registration keep an orthogonal matrix as it is and replace any other with the
    nearest one in the Frobenius norm, its polar factor. If the nearest matrix is not unique, as for
    the zero matrix, one of them is chosen. The original becomes zero, and the value becomes the
    base point; without a base point, and for `polar`, the original is chosen so that it gives the
    value.

    Cost of forward and backward, in products of `n x n` matrices for square ones: `cayley` 4,
    `matrix_exp` 19 and 3 more for each doubling of the norm of `A` beyond 3, `householder` 12 and
    four triangular systems, `polar` 70, and twice that if the condition number of `X` is above
    1000. A tall matrix takes a small multiple of `n / k` times what a `k x k` one does:
    nothing of size `n x n` is made. The value is orthogonal to rounding, that is with the
    Frobenius norm of `Yᴴ Y - I` within `20 eps sqrt(k)`, while the spectral norm of `X` is below
    30 for `cayley` and `householder`, and below 100 for `matrix_exp`.

    Args:
        orthogonal_map: one of the four maps.
        trivialization: whether the first three maps have a base point. Without one, `B` is the
            identity. Then `cayley` and `matrix_exp` cannot reach a matrix with an eigenvalue -1,
            for example a square matrix with negative determinant, and rectangular matrices cannot
            be assigned to `matrix_exp`.
        rebase: the number of training steps after which the base point moves; None for never.
        strict: whether to reject a matrix that is not orthogonal instead of projecting it.

    Raises:
        ValueError: for an unknown map; if the weight is not a matrix; without a base point, if an
            assigned matrix cannot be reached; with `strict`, if an assigned matrix is not
            orthogonal; the error's `deviation` is the Frobenius norm of `Yᴴ Y - I`.
        NotImplementedError: if a rectangular matrix is assigned to `matrix_exp` without a base
            point.

    Source: M. Lezcano Casado, *Trivializations for gradient-based optimization on manifolds*,
    NeurIPS 2019, section 5; see also `cayley_step`, `exponential`, `householder` and `polar` in
    `paramdesc.linalg`.

    >>> linear = register_parametrization(torch.nn.Linear(3, 5), "weight", Orthogonal())
    >>> torch.allclose(linear.weight.T @ linear.weight, torch.eye(3), atol=1e-6)
    True
    """

    constraint = "orthogonal"
    batching = "leading"
    if TYPE_CHECKING:  # TorchScript takes buffers as what they hold, unless they are annotated
        signs: Tensor | None

    def __init__(
        self,
        orthogonal_map: str = "cayley",
        *,
        trivialization: bool = True,
        rebase: int | None = 50,
        strict: bool = False,
    ) -> None:
        super().__init__(rebase=rebase, strict=strict)
        if orthogonal_map not in MAPS:
            raise ValueError(
                f"orthogonal_map must be one of {', '.join(map(repr, MAPS))}. "
                f"Got orthogonal_map={orthogonal_map!r}."
            )
        self.orthogonal_map = orthogonal_map
        self.trivialization = trivialization
        self.register_buffer("signs", None)

    def check(self, X: Tensor) -> None:
        check_matrix(X, "orthogonal")

    def forward(self, X: Tensor) -> Tensor:
        self.check(X)
        if self.orthogonal_map == "polar":
            return polar(X, complete=True)
        if self.orthogonal_map == "cayley" and X.shape[-2] != X.shape[-1]:
            W = widened(X)
            return cayley_from(base_like(W, self.base), W).to(X.dtype)
        if self.orthogonal_map == "householder" and not X.is_complex() and self.base is None:
            return reflected(X, self.signs)
        return self.evaluate(X)

    def tall(self, X: Tensor, base: Tensor | None) -> Tensor:
        if self.orthogonal_map == "householder":
            Y = reflected(X, self.signs)
            return Y if base is None else reflect(base_like(X, base), Y)
        base = base_like(X, base)
        if X.shape[-2] == X.shape[-1]:
            if self.orthogonal_map == "cayley":
                return turned(base, X)
            return matmul(base, skew_exp(skew_part(X)))
        S, P = split(base, X)
        return exponential_step(base, skew_part(S), P)

    def can_move(self) -> bool:
        has_base = self.trivialization and self.orthogonal_map != "polar"
        return has_base and super().can_move()

    def start(self, Y: Tensor) -> Tensor:
        Q = self.nearest(Y)
        if self.orthogonal_map == "polar":
            return Q.to(Y.dtype)
        if self.orthogonal_map == "householder":
            V, self.signs = self.inverse_of_reflected(Q)
            if not self.trivialization:
                return V.to(Y.dtype).contiguous()
            self.base, self.signs = V.contiguous(), -self.signs
            return torch.zeros_like(Y)
        if not self.trivialization:
            return self.inverse_without_base(Q).to(Y.dtype).contiguous()
        self.base = Q.clone()
        return torch.zeros_like(Y)

    def nearest(self, Y: Tensor) -> Tensor:
        """The nearest orthogonal matrix; `Y` itself if it is orthogonal to rounding."""
        W = widened(Y)
        return W if is_orthonormal(W, 10.0) else nearest_orthonormal(W)

    def inverse_of_reflected(self, Q: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors of the reflections, and signs."""
        is_wide = Q.shape[-2] < Q.shape[-1]
        if is_placeholder(Q):
            return torch.empty_like(Q), Q.new_empty(*Q.shape[:-2], 1, min(Q.shape[-2:]))
        V, signs = reflectors(Q.mH if is_wide else Q)
        return V.mH.resolve_conj() if is_wide else V, signs

    def recenter(self, X: Tensor) -> tuple[Tensor, ...]:
        """Zero, and the value as the base point."""
        zero, Y = super().recenter(X)
        if self.orthogonal_map != "householder":
            return zero, Y
        V, signs = self.inverse_of_reflected(Y)
        return zero, V, -signs

    def moved(self, *originals: Tensor, steps: int | None = None) -> Move:
        if self.orthogonal_map != "householder":
            return super().moved(*originals, steps=steps)
        zero, V, signs = self.recenter(*originals)
        base: Any = self.base
        own_signs: Any = self.signs
        return (zero,), [(base, V), (own_signs, signs)]

    def inverse_without_base(self, Q: Tensor) -> Tensor:
        if Q.shape[-2] < Q.shape[-1]:
            return self.inverse_without_base(Q.mH).mH.resolve_conj()
        k = Q.shape[-1]
        top, bottom = Q[..., :k, :], Q[..., k:, :]
        if self.orthogonal_map == "matrix_exp" and bottom.shape[-2] > 0:
            raise NotImplementedError(
                "a rectangular matrix cannot be assigned to matrix_exp without a base point: "
                "there is no formula for its original. Use trivialization=True, or 'cayley'."
            )
        shifted = top + torch.eye(k, dtype=Q.dtype, device=Q.device)
        if has_numbers(Q) and Q.numel() > 0:
            gap = torch.linalg.matrix_norm(shifted, -2).min().item()
            if gap < SMALLEST_GAP:
                raise ValueError(
                    f"without a base point, {self.orthogonal_map} cannot reach this matrix: an "
                    f"eigenvalue of it, or of its upper block, is about {gap:.2g} away from -1, "
                    f"and must be at least {SMALLEST_GAP} away. Use trivialization=True."
                )
        T = 2 * torch.linalg.inv_ex(shifted)[0]
        A = -2 * skew_part(T)
        if self.orthogonal_map == "matrix_exp":
            return logarithm_of_cayley(A)
        return torch.cat([A, bottom @ T], dim=-2)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        if self.orthogonal_map == "householder":  # earlier versions had signs, and no base point
            base, signs = (state_dict.get(f"{prefix}{name}") for name in ("base", "signs"))
            if base is None and signs is not None:
                self.base = None
            elif base is not None and self.base is None and self.signs is not None:
                self.base = torch.empty_like(base, device=self.signs.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        shown = [repr(self.orthogonal_map)]
        shown += ["trivialization=False"] * (not self.trivialization)
        return ", ".join(shown + self.shown_rebase() + ["strict=True"] * self.strict)


def reflected(X: Tensor, signs: Tensor | None) -> Tensor:
    """The product of reflections with the phases that a complex diagonal holds, times signs."""
    Y = householder_like(X)
    if X.is_complex():
        half = torch.diagonal(X, dim1=-2, dim2=-1).imag.unsqueeze(-2) / 2
        ones = torch.ones_like(half)
        Y = Y * (torch.complex(ones, half) / torch.complex(ones, -half))
    if signs is None:
        return -Y
    signs = signs.clone()
    return Y * (signs.mT if X.shape[-2] < X.shape[-1] else signs).to(Y.dtype)


def exponential_step(base: Tensor, A: Tensor, P: Tensor) -> Tensor:
    """`exp(W) base`, with `W` as in `cayley_step`, from an exponential with twice the columns.

    In terms of `[base, P / s]` the matrix `W` is `[[A, -Pᴴ P / s], [s I, 0]]`, for any number
    `s`; it balances the blocks.
    """
    k = A.shape[-1]
    C = matmul(P.mH, P)
    size = torch.linalg.vector_norm(C.detach(), dim=[-2, -1], keepdim=True).sqrt()
    size = torch.where(size > 0, size, torch.ones_like(size))
    identity = torch.eye(k, dtype=A.dtype, device=A.device).expand_as(A)
    W = torch.cat(
        [
            torch.cat([A, -C / size], dim=-1),
            torch.cat([identity * size, torch.zeros_like(A)], dim=-1),
        ],
        dim=-2,
    )
    E = exponential(W)[..., :k]
    Y = matmul(base, E[..., :k, :]) + matmul(P / size, E[..., k:, :])
    return renewed(Y)


def logarithm_of_cayley(A: Tensor) -> Tensor:
    """The logarithm of the Cayley transform of a skew-Hermitian `A`."""
    L, V = torch.linalg.eigh(1j * A)
    K: Tensor = -1j * (V * (2 * torch.atan(L / 2)).unsqueeze(-2)) @ V.mH
    return K if A.is_complex() else K.real
