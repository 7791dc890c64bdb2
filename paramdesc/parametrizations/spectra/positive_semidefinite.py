"""Positive semidefinite matrices with any, bounded or fixed rank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_difference, largest_entry
from paramdesc.linalg.precision import epsilon, matmul, widened
from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.spectra.low_rank import check_positive_rank, check_rank
from paramdesc.parametrizations.spectra.positive_definite import (
    check_floor,
    definite,
    excess,
    hermitian_part,
    hermitian_root,
)

__all__ = ["PositiveSemidefinite"]


class PositiveSemidefinite(Parametrization):
    """Make `layer.weight` positive semidefinite, with rank at most `rank`: `Y = X Xᴴ`.

    The value is symmetric, or Hermitian if complex. With `fixed=True`, its rank is exactly `rank`:
    `Y = F Fᴴ` with `F = X + U (C - M)`, where the columns of `U` are an orthonormal basis of the
    range of the last assigned matrix, `M = Uᴴ X`, and `C = H² + sqrt(floor) I` with the Hermitian
    part `H` of `M`. So `Uᴴ F = C`, and the `rank` largest eigenvalues of `Y` are at least `floor`.
    The map reaches each matrix of this rank for which the eigenvalues of `Uᴴ Y U` are at least
    `floor`; so it reaches every nearby matrix whose nonzero eigenvalues are at least `floor`.

    Shapes `(*, n, rank) -> (*, n, n)`, real and complex; half precision is computed in float32.
    Without a `rank`, the original is `n x n`. The cost is that of the product, `2 n² rank`
    operations, and twice that for the gradient; `fixed` adds `6 n rank²`, and the same for the
    gradient.

    Assignment and registration keep a matrix in the set and replace any other with the nearest one
    in the Frobenius norm: its Hermitian part with its `rank` largest eigenvalues, where those below
    zero, or below `floor`, are raised to it. More exactly, they are raised `sqrt(eps) / 2` times
    the norm higher, because at zero there is no gradient. `X = 0` is such a point.

    Args:
        rank: the rank, from one to `n`. By default, it is not bounded.
        fixed: whether the rank is exactly `rank`.
        floor: the smallest allowed nonzero eigenvalue, if the rank is fixed.
        strict: whether to reject a matrix that is not in the set instead of replacing it.

    Raises:
        ValueError: if the matrices are not square, or an argument does not fit; with `strict`, if
            an assigned matrix is not in the set; the error's `deviation` is the larger of its
            difference from its conjugate transpose and the distance of its eigenvalues from the
            allowed ones.

    Source: see `PositiveDefinite`; for a fixed rank, B. Vandereycken, P.-A. Absil and S.
    Vandewalle, *Embedded geometry of the set of symmetric positive semidefinite matrices of fixed
    rank*, IEEE Workshop on Statistical Signal Processing (2009).

    >>> linear = torch.nn.Linear(4, 4)
    >>> linear = register_parametrization(linear, "weight", PositiveSemidefinite(2))
    >>> linear.parametrizations.weight.original.shape
    torch.Size([4, 2])
    """

    constraint = "positive semidefinite of the given rank"
    if TYPE_CHECKING:  # TorchScript takes its type from what it holds
        base: Tensor | None

    def __init__(
        self,
        rank: int | None = None,
        *,
        fixed: bool = False,
        floor: float = 1e-6,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        if rank is not None:
            check_positive_rank(rank)
        elif fixed:
            raise ValueError("fixed=True needs a rank. Write rank=...")
        check_floor(floor)
        self.rank = rank
        self.fixed = fixed
        self.floor = floor
        self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        F = widened(X)
        base = self.base
        if base is not None:
            U = base.to(F.dtype)
            M = matmul(U.mH, F)
            F = F + matmul(U, definite(hermitian_part(M), math.sqrt(self.floor)) - M)
        return matmul(F, F.mH).to(X.dtype)

    @torch.inference_mode(False)  # a base made there could not be trained on elsewhere
    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> Tensor:
        check_square(Y, "positive semidefinite")
        if self.rank is not None:
            check_rank(Y, self.rank)
        self.admit(Y)
        values, vectors = torch.linalg.eigh(hermitian_part(widened(Y)))
        if self.rank is None:
            return hermitian_root(values, vectors, 0.0, nudge=True).to(Y.dtype)
        first = Y.shape[-1] - self.rank
        values, vectors = values[..., first:], vectors[..., first:]
        if self.fixed:
            self.base = vectors.to(Y.dtype).contiguous()
            values = excess(values.clamp(min=0).sqrt(), math.sqrt(self.floor), nudge=True)
        else:
            values = excess(values, 0.0, nudge=True)
        factor: Tensor = vectors * values.sqrt().unsqueeze(-2)
        return factor.to(Y.dtype).contiguous()

    def deviation(self, Y: Tensor) -> Tensor:
        values = torch.linalg.eigvalsh(hermitian_part(widened(Y)))
        first = 0 if self.rank is None else Y.shape[-1] - self.rank
        beyond = largest_entry(values[..., :first])
        floor = self.floor if self.fixed else 0.0
        below = largest_entry((floor - values[..., first:]).clamp(min=0))
        return torch.maximum(largest_difference(Y, Y.mH), torch.maximum(beyond, below))

    def tolerance(self, Y: Tensor) -> float:
        return 4 * epsilon(Y) * largest_entry(torch.linalg.matrix_norm(widened(Y))).item()

    def extra_repr(self) -> str:
        shown = [f"rank={self.rank}"] if self.rank is not None else []
        shown += [f"fixed=True, floor={self.floor}"] * self.fixed
        return ", ".join(shown + ["strict=True"] * self.strict)
