"""Weights that are normalized."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from paramdesc.parametrizations import (
    Centered,
    FrobeniusNorm,
    MaxNorm,
    SpectralNorm,
    WeightNorm,
    WeightStandardization,
)
from tests.benchmarks.training_quality.contestants import by_hand, by_torch, ours
from tests.benchmarks.training_quality.losses import regression
from tests.benchmarks.training_quality.problem import Contestant, Numbers, Problem

__all__ = ["PROBLEMS"]


def same(Y: Tensor) -> Tensor:
    return Y


def nothing(Y: Tensor) -> float:
    return 0.0


def weight_normed(g: Tensor, v: Tensor) -> Tensor:
    value: Tensor = g * v / v.norm(dim=1, keepdim=True)
    return value


def lengths(Y: Tensor) -> tuple[Tensor, Tensor]:
    return Y.norm(dim=1, keepdim=True), Y


def spectral(X: Tensor) -> Tensor:
    value: Tensor = X / torch.linalg.matrix_norm(X, 2)
    return value


def frobenius(X: Tensor) -> Tensor:
    value: Tensor = X / X.norm()
    return value


def shortened(X: Tensor) -> Tensor:
    value: Tensor = X * (1 / X.norm(dim=-1, keepdim=True)).clamp(max=1)
    return value


def centered(X: Tensor) -> Tensor:
    return X - X.mean(-1, keepdim=True)


def standardized(X: Tensor) -> Tensor:
    variance, mean = torch.var_mean(X, 1, keepdim=True, correction=0)
    return (X - mean) * torch.rsqrt(variance + 1e-10)


WEIGHT_NORMED = {
    "`WeightNorm()`": ours(WeightNorm),
    "torch, weight_norm": by_torch("weight_norm"),
    "by hand, `g v / |v|`": by_hand(weight_normed, lengths),
}
SPECTRAL = {
    "`SpectralNorm()`": ours(SpectralNorm),
    "torch, spectral_norm": by_torch("spectral_norm"),
    "by hand, `X / matrix_norm(X, 2)`": by_hand(spectral, same),
}


def regressed(
    seed: int,
    constraint: str,
    feasible: Callable[[Tensor], Tensor],
    deviation: Callable[[Tensor], object],
    contestants: Mapping[str, Contestant],
    *,
    is_skewed: bool = False,
) -> Problem:
    """A regression without noise; `is_skewed` with inputs whose scales differ by three."""
    numbers = Numbers(seed)
    inputs = numbers.sample(256, 12)
    if is_skewed:
        inputs = inputs * torch.linspace(0.4, 1.2, 12, dtype=torch.float64)
    start, solution = (feasible(numbers.normal(16, 12)) for _ in range(2))
    scales = ", with inputs of scales from 0.4 to 1.2" if is_skewed else ""
    return Problem(
        f"Regression whose 16 x 12 weight {constraint}, without noise{scales}.",
        start,
        regression,
        (inputs, inputs @ solution.mT),
        deviation,
        contestants,
    )


def weight_norm(is_skewed: bool) -> Problem:
    text = "has trained lengths and directions of its rows"
    return regressed(60, text, lambda X: X / 4, nothing, WEIGHT_NORMED, is_skewed=is_skewed)


def spectral_norm(is_skewed: bool) -> Problem:
    text = "has spectral norm one"
    deviation = SpectralNorm(n_power_iterations=100).deviation
    return regressed(61, text, spectral, deviation, SPECTRAL, is_skewed=is_skewed)


def frobenius_norm() -> Problem:
    contestants = {
        "`FrobeniusNorm()`": ours(FrobeniusNorm),
        "by hand, `X / |X|`": by_hand(frobenius, same),
    }
    return regressed(62, "has norm one", frobenius, FrobeniusNorm().deviation, contestants)


def max_norm() -> Problem:
    contestants = {
        "`MaxNorm()`": ours(MaxNorm),
        "by hand, `x min(1, 1 / |x|)`": by_hand(shortened, same),
    }
    text = "has rows of length one at most"

    def feasible(X: Tensor) -> Tensor:
        return shortened(X / 3.5)  # the bound is active for some of the rows

    return regressed(63, text, feasible, MaxNorm().deviation, contestants)


def row_means() -> Problem:
    contestants = {
        "`Centered()`": ours(Centered),
        "by hand, `x - mean(x)`": by_hand(centered, same),
    }
    text = "has rows of mean zero"
    return regressed(64, text, lambda X: centered(X / 4), Centered().deviation, contestants)


def standardization() -> Problem:
    contestants = {
        "`WeightStandardization()`": ours(WeightStandardization),
        "by hand, `(x - mean) rsqrt(variance + eps)`": by_hand(standardized, same),
    }
    text = "has rows of mean zero and variance one"
    deviation = WeightStandardization().deviation
    return regressed(65, text, standardized, deviation, contestants)


PROBLEMS = {
    "weight-normed regression": lambda: weight_norm(False),
    "weight-normed regression, skewed": lambda: weight_norm(True),
    "spectrally normed regression": lambda: spectral_norm(False),
    "spectrally normed regression, skewed": lambda: spectral_norm(True),
    "Frobenius norm": frobenius_norm,
    "bounded rows": max_norm,
    "centered rows": row_means,
    "standardized rows": standardization,
}
