"""Positive semidefinite matrices, of any, of bounded and of fixed rank."""

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
    """`layer.weight` will be positive semidefinite: `Y = X Xᴴ`, of rank `rank` at most.

    Symmetric, or Hermitian if complex. With `fixed=True` its rank is `rank`, never less:
    `Y = F Fᴴ` with `F = X + U (C - M)`, where `U` has the range of the matrix that was
    assigned last as orthonormal columns, `M = Uᴴ X`, and `C = H² + sqrt(floor) I` with the
    Hermitian part `H` of `M`. So `Uᴴ F = C`, and the `rank` largest eigenvalues of `Y` are
    `floor` at least. It reaches each matrix of that rank for which those of `Uᴴ Y U` are
    `floor` at least: that is, from nearby, every one whose own are.

    Shapes `(*, n, rank) -> (*, n, n)`, real and complex; half precision is computed in
    float32. The original is `n x n` without a `rank`. The cost is that of the product,
    `2 n² rank` operations, and of two such for the gradient; `fixed` adds `6 n rank²` and as
    much again for the gradient.

    Assignment and registration keep a matrix of the set and replace any other with the nearest one
    in the Frobenius norm: its Hermitian part with its `rank` largest eigenvalues, where those below
    zero, or `floor`, are raised to it; or rather, to `sqrt(eps) / 2` of its norm more, since from
    zero itself no gradient leads away. `X = 0` is such a point.

    Args:
        rank: the rank, from one to `n`. By default it is not bounded.
        fixed: whether the rank is that exactly.
        floor: the smallest that the nonzero eigenvalues may be, if the rank is fixed.
        strict: whether to reject what is not in the set instead of replacing it.

    Raises:
        ValueError: if the matrices are not square, or an argument does not fit; with `strict`, if
            an assigned matrix is not in the set; the error's `deviation` is the largest of: its
            difference from its conjugate transpose, and what its eigenvalues are away from those
            that are allowed.

    Source: as for `PositiveDefinite`; of fixed rank: B. Vandereycken, P.-A. Absil and
    S. Vandewalle, *Embedded geometry of the set of symmetric positive semidefinite matrices
    of fixed rank*, IEEE Workshop on Statistical Signal Processing (2009).

    >>> linear = torch.nn.Linear(4, 4)
    >>> linear = register_parametrization(linear, "weight", PositiveSemidefinite(2))
    >>> linear.parametrizations.weight.original.shape
    torch.Size([4, 2])
    """

    constraint = "positive semidefinite, of the rank that is asked for"
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
