"""Outer products of two vectors."""

from __future__ import annotations

from torch import Tensor

from paramdesc.linalg.precision import matmul
from paramdesc.parametrizations.spectra.low_rank import LowRank

__all__ = ["RankOne"]


class RankOne(LowRank):
    """Make `layer.weight` an outer product of two vectors: `Y = u vᵀ`.

    The originals are `u`, `(*, m)`, and `v`, `(*, n)`; the value is `(*, m, n)`. Any floating point
    or complex dtype. The cost is one pass over the value, and two for the gradients.

    Assignment and registration keep an outer product and replace any other matrix with the nearest
    one in the Frobenius norm, its leading singular triple. The two vectors then have equal length.
    For a zero matrix, `v` is zero and `u` is not, so that training can continue.

    Args:
        strict: whether to reject a matrix of higher rank instead of replacing it.

    Raises:
        ValueError: if the weight is not a matrix; with `strict`, if an assigned matrix has a higher
            rank; the error's `deviation` is its second singular value.

    Source: see `LowRank`.

    >>> linear = register_parametrization(torch.nn.Linear(5, 4), "weight", RankOne())
    >>> [tuple(x.shape) for x in linear.parametrizations.weight.originals()]
    [(4,), (5,)]
    """

    constraint = "an outer product"

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__(1, strict=strict)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        return matmul(u.unsqueeze(-1), v.unsqueeze(-2))

    def right_inverse(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        A, B = super().right_inverse(Y)
        return A.squeeze(-1), B.squeeze(-2)

    def extra_repr(self) -> str:
        return "strict=True" if self.strict else ""
