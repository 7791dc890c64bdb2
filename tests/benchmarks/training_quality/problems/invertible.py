"""Matrices of positive determinant, and of determinant one."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.parametrizations import PositiveDeterminant, SpecialLinear
from tests.benchmarks.training_quality.contestants import by_geotorch, by_hand, ours
from tests.benchmarks.training_quality.losses import matched, regression
from tests.benchmarks.training_quality.problem import Contestant, Numbers, Problem

__all__ = ["PROBLEMS"]


def invertible(numbers: Numbers, n: int) -> Tensor:
    """Of determinant one, with singular values from a half to two."""
    values = torch.logspace(-1, 1, n, base=2.0, dtype=torch.float64)
    return numbers.orthogonal(n, n) @ numbers.spectrum(values)


def of_determinant_one(X: Tensor) -> Tensor:
    value: Tensor = X / torch.linalg.det(X).abs() ** (1 / len(X))
    return value


def same(Y: Tensor) -> Tensor:
    return Y


def positive() -> dict[str, Contestant]:
    return {
        "`PositiveDeterminant()`": ours(PositiveDeterminant),
        "`PositiveDeterminant(rebase=None)`": ours(lambda: PositiveDeterminant(rebase=None)),
        "geotorch, GLp": by_geotorch(lambda geotorch, shape: geotorch.GLp(shape, triv="expm")),
    }


def special() -> dict[str, Contestant]:
    return {
        "`SpecialLinear()`": ours(SpecialLinear),
        "`SpecialLinear(rebase=None)`": ours(lambda: SpecialLinear(rebase=None)),
        "geotorch, SL": by_geotorch(lambda geotorch, shape: geotorch.SL(shape, triv="expm")),
        "by hand, `X / |det X|^(1/n)`": by_hand(of_determinant_one, same),
    }


def recovered() -> Problem:
    numbers = Numbers(40)
    return Problem(
        "Half the squared distance from a 12 x 12 matrix of positive determinant.",
        invertible(numbers, 12),
        matched,
        (1.5 * invertible(numbers, 12),),
        PositiveDeterminant().deviation,
        positive(),
    )


def invertible_regression() -> Problem:
    numbers = Numbers(41)
    inputs, solution = numbers.sample(256, 8), 0.7 * invertible(numbers, 8)
    return Problem(
        "Regression whose 8 x 8 weight has a positive determinant, without noise.",
        torch.eye(8, dtype=torch.float64),
        regression,
        (inputs, inputs @ solution.mT),
        PositiveDeterminant().deviation,
        positive(),
    )


def unimodular() -> Problem:
    numbers = Numbers(42)
    return Problem(
        "Half the squared distance from a 12 x 12 matrix of determinant one.",
        invertible(numbers, 12),
        matched,
        (invertible(numbers, 12),),
        SpecialLinear().deviation,
        special(),
    )


def volume_kept() -> Problem:
    numbers = Numbers(43)
    inputs, solution = numbers.sample(256, 8), invertible(numbers, 8)
    return Problem(
        "Regression whose 8 x 8 weight has determinant one, without noise.",
        torch.eye(8, dtype=torch.float64),
        regression,
        (inputs, inputs @ solution.mT),
        SpecialLinear().deviation,
        special(),
    )


PROBLEMS = {
    "positive determinant": recovered,
    "invertible regression": invertible_regression,
    "determinant one": unimodular,
    "volume-preserving regression": volume_kept,
}
