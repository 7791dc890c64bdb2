"""Matrices with bounded rank, as products of two factors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.chain.cuts import Cuts
from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import epsilon, matmul, widened
from paramdesc.linalg.shapes import check_matrix

__all__ = ["LowRank", "check_rank", "truncated"]


class LowRank(Parametrization):
    """Limit the rank of `layer.weight` to `rank`: `Y = A B`, with thin factors.

    The originals are `A`, `(*, m, rank)`, and `B`, `(*, rank, n)`; the value is `(*, m, n)`. Any
    floating point or complex dtype. The cost is that of the product, `2 m n rank` operations, and
    twice that for the gradients.

    Assignment and registration keep a matrix of this rank and replace any other with the nearest
    one in the Frobenius norm, its truncated singular value decomposition. The factors share the
    singular values, so that `Aᴴ A = B Bᴴ`. Where a singular value is zero, `B` has a zero row and
    `A` a nonzero column, so that training can raise the rank again; two zeros would have no
    gradient.

    Args:
        rank: the largest rank, from one to the smaller side of the matrix.
        strict: whether to reject a matrix of higher rank instead of replacing it.

    Raises:
        ValueError: if `rank` does not fit the matrices; with `strict`, if an assigned matrix has a
            higher rank; the error's `deviation` is its singular value number `rank + 1`.

    Source: C. Eckart and G. Young, *The approximation of one matrix by another of lower rank*,
    Psychometrika 1 (1936).

    >>> linear = register_parametrization(torch.nn.Linear(5, 4), "weight", LowRank(2))
    >>> torch.linalg.matrix_rank(linear.weight).item()
    2
    """

    constraint = "of the given rank or less"

    def __init__(self, rank: int, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        check_positive_rank(rank)
        self.rank = rank

    def forward(self, A: Tensor, B: Tensor) -> Tensor:
        return matmul(A, B)

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        if dim == ndim - 2:
            return (dim, None), {}
        return ((None, dim), {}) if dim == ndim - 1 else ((dim, dim), {})

    def right_inverse(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        check_rank(Y, self.rank)
        self.admit(Y)
        U, S, Vh = truncated(Y, self.rank)
        largest = S[..., :1]
        vanishes = epsilon(S) * largest >= S
        share = torch.where(vanishes, torch.where(largest > 0, largest, 1), S).sqrt()
        A, B = U * share.unsqueeze(-2), Vh * (S / share).unsqueeze(-1)
        return A.to(Y.dtype).contiguous(), B.to(Y.dtype).contiguous()

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest singular value that should be zero: the distance, in the spectral norm."""
        return largest_entry(torch.linalg.svdvals(widened(Y))[..., self.rank :])

    def tolerance(self, Y: Tensor) -> float:
        roundings = 4 + math.sqrt(sum(Y.shape[-2:]))
        return roundings * epsilon(Y) * largest_entry(torch.linalg.matrix_norm(widened(Y))).item()

    def extra_repr(self) -> str:
        return f"rank={self.rank}" + ", strict=True" * self.strict


def check_positive_rank(rank: int) -> None:
    """Raise an error unless `rank` is positive."""
    if rank < 1:
        raise ValueError(f"rank must be positive. Got rank={rank}.")


def check_rank(Y: Tensor, rank: int) -> None:
    """Raise an error for matrices that are too small to have this rank."""
    check_matrix(Y, "low-rank")
    if rank > min(Y.shape[-2:]):
        raise ValueError(
            f"rank={rank} is more than a matrix of shape {list(Y.shape)} can have. "
            f"Write rank={min(Y.shape[-2:])}, or less."
        )


def truncated(Y: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The leading `rank` singular vectors and values of `Y`, at least in float32: `U, S, Vᴴ`."""
    U, S, Vh = torch.linalg.svd(widened(Y), full_matrices=False)
    return U[..., :rank], S[..., :rank], Vh[..., :rank, :]
