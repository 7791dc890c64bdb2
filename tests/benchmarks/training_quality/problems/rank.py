"""Matrices of low rank, also symmetric ones."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.parametrizations import FixedRank, LowRank, PositiveSemidefinite, RankOne
from tests.benchmarks.training_quality.contestants import by_geotorch, by_hand, ours
from tests.benchmarks.training_quality.losses import matched, regression, restricted
from tests.benchmarks.training_quality.problem import Contestant, Numbers, Problem

__all__ = ["PROBLEMS"]

RANK = 3


def halves(Y: Tensor) -> tuple[Tensor, Tensor]:
    U, S, Vh = torch.linalg.svd(Y)
    root = S[:RANK].sqrt()
    return U[:, :RANK] * root, root.unsqueeze(-1) * Vh[:RANK]


def product(A: Tensor, B: Tensor) -> Tensor:
    return A @ B


def contestants() -> dict[str, Contestant]:
    return {
        "`FixedRank(3)`": ours(lambda: FixedRank(RANK)),
        "`FixedRank(3, rebase=None)`": ours(lambda: FixedRank(RANK, rebase=None)),
        "`LowRank(3)`": ours(lambda: LowRank(RANK)),
        "geotorch, FixedRank": by_geotorch(
            lambda geotorch, shape: geotorch.FixedRank(shape, RANK, triv="expm")
        ),
        "geotorch, LowRank": by_geotorch(
            lambda geotorch, shape: geotorch.LowRank(shape, RANK, triv="expm")
        ),
        "by hand, `A B`": by_hand(product, halves),
    }


def low_rank(numbers: Numbers, m: int, n: int, rank: int = RANK) -> Tensor:
    """With singular values about one to two."""
    values = torch.linspace(1.0, 2.0, rank, dtype=torch.float64)
    return (numbers.orthogonal(m, rank) * values) @ numbers.orthogonal(n, rank).mT


def completed() -> Problem:
    numbers = Numbers(20)
    target, start = low_rank(numbers, 24, 20), low_rank(numbers, 24, 20)
    return Problem(
        "Completion of a 24 x 20 matrix of rank 3 from 60 % of its entries.",
        start,
        restricted,
        (target, (numbers.uniform(24, 20) < 0.6).double()),
        LowRank(RANK).deviation,
        contestants(),
    )


def reduced_rank() -> Problem:
    numbers = Numbers(21)
    inputs, solution = numbers.sample(256, 20), low_rank(numbers, 24, 20)
    return Problem(
        "Regression whose 24 x 20 weight has rank 3, without noise.",
        low_rank(numbers, 24, 20),
        regression,
        (inputs, inputs @ solution.mT),
        LowRank(RANK).deviation,
        contestants(),
    )


def outer() -> Problem:
    numbers = Numbers(22)
    target, start = (low_rank(numbers, 16, 12, rank=1) for _ in range(2))

    def vectors(Y: Tensor) -> tuple[Tensor, Tensor]:
        U, S, Vh = torch.linalg.svd(Y)
        return U[:, 0] * S[0].sqrt(), Vh[0] * S[0].sqrt()

    return Problem(
        "Half the squared distance from a 16 x 12 matrix of rank one.",
        start,
        matched,
        (target,),
        RankOne().deviation,
        {
            "`RankOne()`": ours(RankOne),
            "geotorch, LowRank": by_geotorch(
                lambda geotorch, shape: geotorch.LowRank(shape, 1, triv="expm")
            ),
            "by hand, `u vᵀ`": by_hand(torch.outer, vectors),
        },
    )


def factor(Y: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(Y)
    value: Tensor = vectors[:, -RANK:] * values[-RANK:].clamp(min=0).sqrt()
    return value


def square(X: Tensor) -> Tensor:
    return X @ X.mT


def semidefinite(numbers: Numbers, n: int) -> Tensor:
    values = torch.zeros(n, dtype=torch.float64)
    values[:RANK] = torch.linspace(1.0, 2.0, RANK)
    return numbers.spectrum(values)


def low_rank_covariance() -> Problem:
    numbers = Numbers(23)
    target, start = semidefinite(numbers, 16), semidefinite(numbers, 16)
    mask = (numbers.uniform(16, 16) < 0.6).double()
    return Problem(
        "Completion of a positive semidefinite 16 x 16 matrix of rank 3 from most of its entries.",
        start,
        restricted,
        (target, torch.maximum(mask, mask.mT)),
        PositiveSemidefinite(RANK).deviation,
        {
            "`PositiveSemidefinite(3)`": ours(lambda: PositiveSemidefinite(RANK)),
            "`PositiveSemidefinite(3, fixed=True)`": ours(
                lambda: PositiveSemidefinite(RANK, fixed=True)
            ),
            "geotorch, PSSDLowRank": by_geotorch(
                lambda geotorch, shape: geotorch.PSSDLowRank(shape, RANK, triv="expm")
            ),
            "geotorch, PSSDFixedRank": by_geotorch(
                lambda geotorch, shape: geotorch.PSSDFixedRank(shape, RANK, triv="expm")
            ),
            "by hand, `X Xᵀ`": by_hand(square, factor),
        },
    )


PROBLEMS = {
    "matrix completion": completed,
    "reduced rank regression": reduced_rank,
    "outer product": outer,
    "low-rank covariance": low_rank_covariance,
}
