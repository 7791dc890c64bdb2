"""Positive definite matrices, covariances and correlations."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.parametrizations import Correlation, Gram, PositiveDefinite, PositiveSemidefinite
from tests.benchmarks.training_quality.contestants import by_geoopt, by_geotorch, by_hand, ours
from tests.benchmarks.training_quality.losses import log_likelihood, matched
from tests.benchmarks.training_quality.problem import Contestant, Numbers, Problem

__all__ = ["PROBLEMS"]


def lower(X: Tensor) -> Tensor:
    L = X.tril()
    return L @ L.mT


def lower_with_exponentials(X: Tensor) -> Tensor:
    L = X.tril(-1) + X.diagonal().exp().diag()
    return L @ L.mT


def with_logarithms(Y: Tensor) -> Tensor:
    L: Tensor = torch.linalg.cholesky(Y)
    return L.tril(-1) + L.diagonal().log().diag()


def contestants() -> dict[str, Contestant]:
    return {
        "`PositiveDefinite()`": ours(PositiveDefinite),
        "`PositiveDefinite(triangular=False)`": ours(lambda: PositiveDefinite(triangular=False)),
        "`PositiveSemidefinite()`": ours(PositiveSemidefinite),
        "`Gram()`": ours(Gram),
        "geotorch, PSD": by_geotorch(lambda geotorch, shape: geotorch.PSD(shape, triv="expm")),
        "geoopt, SymmetricPositiveDefinite": by_geoopt(
            lambda geoopt: geoopt.SymmetricPositiveDefinite()
        ),
        "by hand, `L Lᵀ`": by_hand(lower, torch.linalg.cholesky),
        "by hand, `L Lᵀ`, diagonal by exp": by_hand(lower_with_exponentials, with_logarithms),
    }


def squared_error() -> Problem:
    numbers = Numbers(30)
    values = torch.linspace(0.3, 3.0, 12, dtype=torch.float64)
    return Problem(
        "Half the squared distance from a positive definite 12 x 12 matrix of condition 10, from "
        "the identity.",
        torch.eye(12, dtype=torch.float64),
        matched,
        (numbers.spectrum(values),),
        PositiveDefinite().deviation,
        contestants(),
    )


def covariance() -> Problem:
    numbers = Numbers(31)
    values = torch.logspace(-1, 1, 10, dtype=torch.float64)
    return Problem(
        "The covariance of most likelihood, of condition 100 and size 10, from the identity.",
        torch.eye(10, dtype=torch.float64),
        log_likelihood,
        (numbers.spectrum(values),),
        PositiveDefinite().deviation,
        contestants(),
    )


def unit_rows(X: Tensor) -> Tensor:
    L = X.tril()
    L = L / L.norm(dim=-1, keepdim=True)
    value: Tensor = L @ L.mT
    return value


def by_stick_breaking(X: Tensor) -> Tensor:
    L: Tensor = torch.distributions.CorrCholeskyTransform()(X)
    return L @ L.mT


def of_sticks(Y: Tensor) -> Tensor:
    X: Tensor = torch.distributions.CorrCholeskyTransform().inv(torch.linalg.cholesky(Y))
    return X


def correlated(numbers: Numbers, n: int) -> Tensor:
    X = numbers.normal(n, n) + 0.5
    L = X / X.norm(dim=-1, keepdim=True)
    value: Tensor = 0.9 * L @ L.mT + 0.1 * torch.eye(n, dtype=torch.float64)
    return value


def correlations() -> dict[str, Contestant]:
    return {
        "`Correlation()`": ours(Correlation),
        "by hand, unit rows": by_hand(unit_rows, torch.linalg.cholesky),
        "by hand, CorrCholeskyTransform": by_hand(by_stick_breaking, of_sticks),
    }


def correlation() -> Problem:
    numbers = Numbers(32)
    return Problem(
        "Half the squared distance from a 10 x 10 correlation matrix, from the identity.",
        torch.eye(10, dtype=torch.float64),
        matched,
        (correlated(numbers, 10),),
        Correlation().deviation,
        correlations(),
    )


def likely_correlation() -> Problem:
    numbers = Numbers(33)
    return Problem(
        "The correlation matrix of most likelihood, of size 8, from the identity.",
        torch.eye(8, dtype=torch.float64),
        log_likelihood,
        (correlated(numbers, 8),),
        Correlation().deviation,
        correlations(),
    )


PROBLEMS = {
    "positive definite, squared error": squared_error,
    "covariance, likelihood": covariance,
    "correlation, squared error": correlation,
    "correlation, likelihood": likely_correlation,
}
