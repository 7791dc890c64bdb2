"""Symmetric and skew-symmetric matrices, and others in a linear subspace."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from paramdesc.parametrizations import Circulant, Skew, Symmetric, Toeplitz, Traceless, Triangular
from tests.benchmarks.training_quality.contestants import by_geotorch, by_hand, ours
from tests.benchmarks.training_quality.losses import regression
from tests.benchmarks.training_quality.problem import Contestant, Numbers, Problem

__all__ = ["PROBLEMS"]

SIZE = 12


def mirrored(X: Tensor) -> Tensor:
    return X.triu() + X.triu(1).mT


def averaged(X: Tensor) -> Tensor:
    return (X + X.mT) / 2


def turned(X: Tensor) -> Tensor:
    return X.triu(1) - X.triu(1).mT


def halved(X: Tensor) -> Tensor:
    return (X - X.mT) / 2


def lower(X: Tensor) -> Tensor:
    return X.tril()


def traceless(X: Tensor) -> Tensor:
    return X - torch.eye(len(X), dtype=X.dtype) * X.trace() / len(X)


def circulant(c: Tensor) -> Tensor:
    return c[(torch.arange(len(c)).unsqueeze(1) - torch.arange(len(c))) % len(c)]


def toeplitz(c: Tensor) -> Tensor:
    n = (len(c) + 1) // 2
    return c[torch.arange(n).unsqueeze(1) - torch.arange(n) + n - 1]


def diagonals(Y: Tensor) -> Tensor:
    return torch.cat([Y[0].flip(0), Y[1:, 0]])


def same(Y: Tensor) -> Tensor:
    return Y


def regressed(
    seed: int,
    constraint: str,
    feasible: Callable[[Tensor], Tensor],
    deviation: Callable[[Tensor], object],
    contestants: Mapping[str, Contestant],
) -> Problem:
    numbers = Numbers(seed)
    inputs = numbers.sample(256, SIZE)
    start, solution = (feasible(numbers.normal(SIZE, SIZE) / 3) for _ in range(2))
    return Problem(
        f"Regression whose {SIZE} x {SIZE} weight is {constraint}, without noise.",
        start,
        regression,
        (inputs, inputs @ solution.mT),
        deviation,
        contestants,
    )


def symmetric() -> Problem:
    contestants = {
        "`Symmetric()`": ours(Symmetric),
        "geotorch, Symmetric": by_geotorch(lambda geotorch, shape: geotorch.Symmetric()),
        "by hand, mirrored": by_hand(mirrored, same),
        "by hand, `(X + Xᵀ) / 2`": by_hand(averaged, same),
    }
    return regressed(80, "symmetric", averaged, Symmetric().deviation, contestants)


def skew() -> Problem:
    contestants = {
        "`Skew()`": ours(Skew),
        "geotorch, Skew": by_geotorch(lambda geotorch, shape: geotorch.Skew(shape)),
        "by hand, mirrored": by_hand(turned, same),
        "by hand, `(X - Xᵀ) / 2`": by_hand(halved, same),
    }
    return regressed(81, "skew-symmetric", halved, Skew().deviation, contestants)


def triangular() -> Problem:
    contestants = {
        "`Triangular()`": ours(Triangular),
        "by hand, tril": by_hand(lower, same),
    }
    return regressed(82, "lower triangular", lower, Triangular().deviation, contestants)


def trace() -> Problem:
    contestants = {
        "`Traceless()`": ours(Traceless),
        "by hand, `X - tr(X) I / n`": by_hand(traceless, same),
    }
    return regressed(83, "of trace zero", traceless, Traceless().deviation, contestants)


def circular() -> Problem:
    contestants = {
        "`Circulant()`": ours(Circulant),
        "by hand, one column": by_hand(circulant, lambda Y: Y[:, 0]),
    }

    def feasible(X: Tensor) -> Tensor:
        return circulant(X[0])

    return regressed(84, "circulant", feasible, Circulant().deviation, contestants)


def constant_diagonals() -> Problem:
    contestants = {
        "`Toeplitz()`": ours(Toeplitz),
        "by hand, one row and column": by_hand(toeplitz, diagonals),
    }

    def feasible(X: Tensor) -> Tensor:
        return toeplitz(torch.cat([X[0], X[1, 1:]]))

    return regressed(85, "a Toeplitz matrix", feasible, Toeplitz().deviation, contestants)


PROBLEMS = {
    "symmetric": symmetric,
    "skew-symmetric": skew,
    "triangular": triangular,
    "traceless": trace,
    "circulant": circular,
    "Toeplitz": constant_diagonals,
}
