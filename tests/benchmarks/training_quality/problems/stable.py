"""Matrices of stable linear systems."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.parametrizations import HurwitzStable, SchurStable
from tests.benchmarks.training_quality.contestants import by_geotorch, by_hand, ours
from tests.benchmarks.training_quality.losses import matched, regression
from tests.benchmarks.training_quality.problem import Contestant, Numbers, Problem

__all__ = ["PROBLEMS"]


def hurwitz(numbers: Numbers, n: int) -> Tensor:
    """With oscillations, and decays from 0.1 on."""
    decay = numbers.spectrum(torch.linspace(0.1, 1.5, n, dtype=torch.float64))
    turn = numbers.normal(n, n) / n**0.5
    value: Tensor = turn - turn.mT - decay
    return value


def sheared(numbers: Numbers, A: Tensor) -> Tensor:
    """In other coordinates, in which norms may grow although all solutions decay."""
    S = torch.eye(len(A), dtype=A.dtype) + numbers.normal(*A.shape).triu(1) / 2
    value: Tensor = torch.linalg.solve(S, A @ S)
    return value


def schur(numbers: Numbers, n: int) -> Tensor:
    X = numbers.normal(n, n)
    value: Tensor = 0.9 * X / torch.linalg.eigvals(X).abs().max()
    return value


def dissipative(X: Tensor, D: Tensor) -> Tensor:
    return X - X.mT - D @ D.mT


def halves(Y: Tensor) -> tuple[Tensor, Tensor]:
    return (Y - Y.mT) / 4, torch.linalg.cholesky(-(Y + Y.mT) / 2)


def scaled(X: Tensor) -> Tensor:
    value: Tensor = X / torch.linalg.eigvals(X).abs().max().clamp(min=1)
    return value


def same(Y: Tensor) -> Tensor:
    return Y


def continuous() -> dict[str, Contestant]:
    return {
        "`HurwitzStable()`": ours(HurwitzStable),
        "geotorch, Hurwitz": by_geotorch(
            lambda geotorch, shape: geotorch.Hurwitz(shape, triv="expm")
        ),
    }


def discrete() -> dict[str, Contestant]:
    return {
        "`SchurStable()`": ours(SchurStable),
        "by hand, `X / max(1, radius)`": by_hand(scaled, same),
    }


def nearest_hurwitz() -> Problem:
    numbers = Numbers(50)
    return Problem(
        "Half the squared distance from a stable 10 x 10 matrix, whose symmetric part is negative "
        "definite, too.",
        hurwitz(numbers, 10),
        matched,
        (hurwitz(numbers, 10),),
        HurwitzStable().deviation,
        {**continuous(), "by hand, `X - Xᵀ - D Dᵀ`": by_hand(dissipative, halves)},
    )


def derivatives() -> Problem:
    numbers = Numbers(51)
    states = numbers.sample(256, 6)
    start, solution = (sheared(numbers, hurwitz(numbers, 6)) for _ in range(2))
    return Problem(
        "A stable system of 6 states from its derivatives, without noise; some norms grow at "
        "first, which excludes `X - Xᵀ - D Dᵀ`.",
        start,
        regression,
        (states, states @ solution.mT),
        HurwitzStable().deviation,
        continuous(),
    )


def nearest_schur() -> Problem:
    numbers = Numbers(52)
    return Problem(
        "Half the squared distance from a 10 x 10 matrix of spectral radius 0.9.",
        schur(numbers, 10),
        matched,
        (schur(numbers, 10),),
        SchurStable().deviation,
        discrete(),
    )


def next_states() -> Problem:
    numbers = Numbers(53)
    states, solution = numbers.sample(256, 6), schur(numbers, 6)
    return Problem(
        "A stable recurrence of 6 states from its next states, without noise.",
        schur(numbers, 6),
        regression,
        (states, states @ solution.mT),
        SchurStable().deviation,
        discrete(),
    )


PROBLEMS = {
    "Hurwitz stable": nearest_hurwitz,
    "Hurwitz stable system": derivatives,
    "Schur stable": nearest_schur,
    "Schur stable recurrence": next_states,
}
