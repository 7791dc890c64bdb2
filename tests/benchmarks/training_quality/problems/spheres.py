"""Vectors of length one."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.parametrizations import FrobeniusNorm, Oblique, Sphere
from tests.benchmarks.training_quality.contestants import by_geoopt, by_geotorch, by_hand, ours
from tests.benchmarks.training_quality.losses import matched, quadratic_form, regression
from tests.benchmarks.training_quality.problem import Contestant, Numbers, Problem

__all__ = ["PROBLEMS"]


def normalized(X: Tensor) -> Tensor:
    value: Tensor = X / X.norm(dim=-1, keepdim=True)
    return value


def normalized_columns(X: Tensor) -> Tensor:
    value: Tensor = X / X.norm(dim=0, keepdim=True)
    return value


def same(Y: Tensor) -> Tensor:
    return Y


PEERS = {
    "geotorch, SphereEmbedded": by_geotorch(lambda geotorch, shape: geotorch.SphereEmbedded(shape)),
    "geotorch, Sphere": by_geotorch(lambda geotorch, shape: geotorch.Sphere(shape)),
    "geoopt, Sphere": by_geoopt(lambda geoopt: geoopt.Sphere()),
    "by hand, `x / |x|`": by_hand(normalized, same),
}
SPHERE = {
    "`Sphere()`": ours(Sphere),
    "`Sphere(rebase=None)`": ours(lambda: Sphere(rebase=None)),
    **PEERS,
}


def leading_form(Y: Tensor, A: Tensor, weights: Tensor, least: Tensor) -> Tensor:
    return quadratic_form(Y.mT, A, weights, least)


def leading_eigenvector() -> Problem:
    numbers = Numbers(10)
    values = torch.linspace(0.0, 2.0, 64, dtype=torch.float64)
    return Problem(
        "The leading eigenvector of a symmetric 64 x 64 matrix, with evenly spaced eigenvalues.",
        normalized(numbers.normal(1, 64)),
        leading_form,
        (numbers.spectrum(values), torch.ones(1).double(), torch.tensor(-1.0).double()),
        Sphere().deviation,
        {**SPHERE, "`FrobeniusNorm()`": ours(FrobeniusNorm)},
        project=normalized,
    )


def unit_rows() -> Problem:
    numbers = Numbers(11)
    inputs, solution = numbers.sample(256, 24), normalized(numbers.normal(16, 24))
    return Problem(
        "Regression whose 16 x 24 weight has rows of length one, without noise.",
        normalized(numbers.normal(16, 24)),
        regression,
        (inputs, inputs @ solution.mT),
        Sphere().deviation,
        SPHERE,
    )


def columns() -> dict[str, Contestant]:
    return {
        "`Oblique()`": ours(Oblique),
        "`Sphere(dim=0)`": ours(lambda: Sphere(dim=0)),
        "by hand, `x / |x|`": by_hand(normalized_columns, same),
    }


def dictionary() -> Problem:
    numbers = Numbers(12)
    solution = normalized_columns(numbers.normal(16, 32))
    codes = numbers.sample(256, 32)
    return Problem(
        "A dictionary of 32 atoms of length one and dimension 16, for given codes.",
        normalized_columns(numbers.normal(16, 32)),
        regression,
        (codes, codes @ solution.mT),
        Oblique().deviation,
        columns(),
    )


def unit_columns() -> Problem:
    numbers = Numbers(13)
    return Problem(
        "Half the squared distance from a 32 x 8 matrix with columns of length one.",
        normalized_columns(numbers.normal(32, 8)),
        matched,
        (normalized_columns(numbers.normal(32, 8)),),
        Oblique().deviation,
        columns(),
    )


PROBLEMS = {
    "leading eigenvector": leading_eigenvector,
    "unit rows": unit_rows,
    "dictionary": dictionary,
    "unit columns": unit_columns,
}
