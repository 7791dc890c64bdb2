"""Constraints on entries: positive, in an interval, distributions, increasing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from paramdesc.parametrizations import FromDistributions, Interval, Ordered, Positive, Simplex
from tests.benchmarks.training_quality.contestants import by_hand, ours
from tests.benchmarks.training_quality.losses import matched, regression
from tests.benchmarks.training_quality.problem import Contestant, Numbers, Problem

__all__ = ["PROBLEMS"]

softplus = nn.functional.softplus


def inverse_softplus(Y: Tensor) -> Tensor:
    return Y + (-(-Y).expm1()).log()


def positive() -> dict[str, Contestant]:
    return {
        "`Positive()`": ours(Positive),
        "`Positive(function='exp')`": ours(lambda: Positive(function="exp")),
        "by hand, softplus": by_hand(softplus, inverse_softplus),
        "by hand, exp": by_hand(torch.exp, torch.log),
        "by hand, square": by_hand(torch.square, torch.sqrt),
    }


def positive_regression() -> Problem:
    numbers = Numbers(70)
    inputs, solution = numbers.sample(256, 12), numbers.uniform(8, 12) * 2 + 0.02
    return Problem(
        "Regression whose 8 x 12 weight has positive entries, without noise.",
        torch.ones(8, 12, dtype=torch.float64),
        regression,
        (inputs, inputs @ solution.mT),
        Positive().deviation,
        positive(),
    )


def gaussian(variance: Tensor, found: Tensor) -> Tensor:
    ratio = found / variance
    return (ratio - ratio.log() - 1).sum() / 2


def variances() -> Problem:
    return Problem(
        "Variances from 0.1 to 10 of most likelihood, from one.",
        torch.ones(16, dtype=torch.float64),
        gaussian,
        (torch.logspace(-1, 1, 16, dtype=torch.float64),),
        Positive().deviation,
        positive(),
    )


def bounded() -> dict[str, Contestant]:
    interval = constraints.interval(-1.0, 2.0)  # type: ignore[no-untyped-call]
    theirs = transform_to(interval)
    return {
        "`Interval(-1, 2)`": ours(lambda: Interval(-1, 2)),
        "`FromDistributions(interval(-1, 2))`": ours(lambda: FromDistributions(interval)),
        "by hand, sigmoid": by_hand(
            lambda X: 3 * torch.sigmoid(X) - 1, lambda Y: torch.logit((Y + 1) / 3)
        ),
        "torch, transform_to(interval)": by_hand(theirs, theirs.inv),
    }


def bounded_regression() -> Problem:
    numbers = Numbers(71)
    inputs, solution = numbers.sample(256, 12), numbers.uniform(8, 12) * 2.9 - 0.95
    return Problem(
        "Regression whose 8 x 12 weight has entries between -1 and 2, without noise.",
        torch.full((8, 12), 0.5, dtype=torch.float64),
        regression,
        (inputs, inputs @ solution.mT),
        Interval(-1, 2).deviation,
        bounded(),
    )


def bounded_target() -> Problem:
    numbers = Numbers(72)
    return Problem(
        "Half the squared distance from 64 numbers between -1 and 2, from the middle.",
        torch.full((64,), 0.5, dtype=torch.float64),
        matched,
        (numbers.uniform(64) * 2.8 - 0.9,),
        Interval(-1, 2).deviation,
        bounded(),
    )


def distributions() -> dict[str, Contestant]:
    return {
        "`Simplex()`": ours(Simplex),
        "by hand, softmax": by_hand(lambda X: torch.softmax(X, -1), torch.log),
        "by hand, stick breaking": by_hand(
            torch.distributions.StickBreakingTransform(),
            torch.distributions.StickBreakingTransform().inv,
        ),
    }


def divergence(Y: Tensor, target: Tensor) -> Tensor:
    return (target * (target / Y).log()).sum()


def cross_entropy() -> Problem:
    numbers = Numbers(73)
    return Problem(
        "Eight distributions of 12 outcomes, by Kullback-Leibler divergence, from uniform ones.",
        torch.full((8, 12), 1 / 12, dtype=torch.float64),
        divergence,
        (torch.softmax(1.5 * numbers.normal(8, 12), -1),),
        Simplex().deviation,
        distributions(),
    )


def mixing() -> Problem:
    numbers = Numbers(74)
    inputs, solution = numbers.sample(256, 12), torch.softmax(numbers.normal(8, 12), -1)
    return Problem(
        "Regression whose 8 x 12 weight has distributions for its rows, without noise.",
        torch.full((8, 12), 1 / 12, dtype=torch.float64),
        regression,
        (inputs, inputs @ solution.mT),
        Simplex().deviation,
        distributions(),
    )


def by_sums(X: Tensor) -> Tensor:
    return torch.cat([X[..., :1], softplus(X[..., 1:])], -1).cumsum(-1)


def of_sums(Y: Tensor) -> Tensor:
    return torch.cat([Y[..., :1], inverse_softplus(Y.diff(dim=-1))], -1)


def increasing() -> dict[str, Contestant]:
    return {
        "`Ordered()`": ours(Ordered),
        "by hand, sums of softplus": by_hand(by_sums, of_sums),
        "by hand, sums of exp": by_hand(
            lambda X: torch.cat([X[..., :1], X[..., 1:].exp()], -1).cumsum(-1),
            lambda Y: torch.cat([Y[..., :1], Y.diff(dim=-1).log()], -1),
        ),
    }


def sorted_rows() -> Problem:
    numbers = Numbers(75)
    target = numbers.normal(8, 12).sort(-1).values
    return Problem(
        "Half the squared distance from an 8 x 12 matrix of increasing rows.",
        torch.linspace(-1, 1, 12, dtype=torch.float64).expand(8, 12),
        matched,
        (target,),
        Ordered().deviation,
        increasing(),
    )


def thresholded(Y: Tensor, scores: Tensor, labels: Tensor, least: Tensor) -> Tensor:
    below = torch.sigmoid(Y - scores.unsqueeze(-1))
    edges = below.new_tensor([0.0, 1.0]).expand(len(scores), 2)
    chances = torch.cat([edges[:, :1], below, edges[:, 1:]], -1).diff(dim=-1)
    return -(labels * chances.log()).sum() / len(scores) - least


def thresholds() -> Problem:
    numbers = Numbers(76)
    scores, best = numbers.normal(64), torch.tensor([-2.0, -0.5, 0.0, 0.3, 2.0]).double()
    zero = torch.zeros((), dtype=torch.float64)
    below = torch.sigmoid(best - scores.unsqueeze(-1))
    ends = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(64, 2)
    labels = torch.cat([ends[:, :1], below, ends[:, 1:]], -1).diff(dim=-1)
    least = thresholded(best, scores, labels, zero)
    return Problem(
        "The thresholds of an ordinal regression of six classes, by likelihood.",
        torch.linspace(-1, 1, 5, dtype=torch.float64),
        thresholded,
        (scores, labels, least),
        Ordered().deviation,
        increasing(),
    )


PROBLEMS = {
    "positive regression": positive_regression,
    "variances, likelihood": variances,
    "bounded regression": bounded_regression,
    "bounded numbers": bounded_target,
    "distributions, divergence": cross_entropy,
    "mixing matrix": mixing,
    "increasing rows": sorted_rows,
    "thresholds, likelihood": thresholds,
}
