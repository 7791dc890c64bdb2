"""Norms and centring, and constraints on the entries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints as typed_constraints

from paramdesc.parametrizations.entries.from_distributions import FromDistributions
from paramdesc.parametrizations.entries.interval import Interval, UnitInterval
from paramdesc.parametrizations.entries.ordered import Ordered
from paramdesc.parametrizations.entries.positive import Positive
from paramdesc.parametrizations.entries.simplex import Simplex
from paramdesc.parametrizations.norms.centered import Centered
from paramdesc.parametrizations.norms.frobenius_norm import FrobeniusNorm
from paramdesc.parametrizations.norms.max_norm import MaxNorm
from paramdesc.parametrizations.norms.weight_norm import WeightNorm
from paramdesc.parametrizations.norms.weight_standardization import WeightStandardization
from tests.parametrizations.cases.case import Case

__all__ = ["CASES"]

constraints: Any = typed_constraints

IDENTITY: dict[str, Any] = {"right_inverse": "identity"}
ROWS: dict[str, Any] = {"batch": False}  # the first dimension holds the outputs
SCRIPT = {"script": "TorchScript cannot compile transforms"}
OVERFLOW = {"special points": "the exponential of a thousand is infinite"}
NO_SCRIPT: dict[str, Any] = {"without": SCRIPT}


def complex_numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64)


def positive_definite() -> Tensor:
    A = torch.randn(3, 3)
    return A @ A.mT + torch.eye(3)


CASES: dict[str, Case] = {
    "weight norm": Case(lambda: WeightNorm(), 4, 3, **IDENTITY, **ROWS),
    "weight norm, last dimension": Case(lambda: WeightNorm(-1), 4, 3, 2, **IDENTITY, **ROWS),
    "weight norm, whole": Case(lambda: WeightNorm(None), 4, 3, **IDENTITY, **ROWS),
    "weight norm, eps": Case(lambda: WeightNorm(eps=0.5), 3, 4, **IDENTITY, **ROWS),
    "weight norm, vector": Case(lambda: WeightNorm(), 4, **IDENTITY, **ROWS),
    "weight norm, complex": Case(
        lambda: WeightNorm(1), weight=lambda: complex_numbers(2, 3, 2), **IDENTITY, **ROWS
    ),
    "Frobenius norm": Case(lambda: FrobeniusNorm(2.0), 4, 3, batch=False),
    "Frobenius norm, of each matrix": Case(lambda: FrobeniusNorm(dim=(-2, -1)), 4, 3),
    "Frobenius norm, only shrink": Case(lambda: FrobeniusNorm(1.5, dim=-1, only_shrink=True), 3, 4),
    "Frobenius norm, complex": Case(
        lambda: FrobeniusNorm(dim=(-2, -1)), weight=lambda: complex_numbers(3, 4)
    ),
    "max norm": Case(lambda: MaxNorm(), 3, 4),
    "max norm, of convolution": Case(lambda: MaxNorm(2.0, dim=(1, 2, 3)), 3, 2, 2, 2, batch=False),
    "centered": Case(lambda: Centered(), 3, 4),
    "centered, complex columns": Case(lambda: Centered(-2), weight=lambda: complex_numbers(3, 4)),
    "centered, whole": Case(lambda: Centered(None), 3, 4, batch=False),
    "weight standardization": Case(lambda: WeightStandardization(eps=1e-14), 3, 4, **ROWS),
    "weight standardization, transposed convolution": Case(
        lambda: WeightStandardization(1, eps=1e-14), 2, 3, 2, **ROWS
    ),
    "weight standardization, complex": Case(
        lambda: WeightStandardization(eps=1e-14), weight=lambda: complex_numbers(3, 4), **ROWS
    ),
    "positive": Case(lambda: Positive(), 3, 4),
    "positive, larger than": Case(lambda: Positive(0.5), 3, 4),
    "positive, exponential": Case(lambda: Positive(function="exp"), 3, 4, without=OVERFLOW),
    "interval": Case(lambda: Interval(-0.5, 2.0), 3, 4),
    "interval, of tensors": Case(
        lambda: Interval(torch.tensor([-1.0, 0.0, 0.5, 1.0]), torch.tensor(2.0)), 3, 4
    ),
    "unit interval": Case(lambda: UnitInterval(), 3, 4),
    "simplex": Case(lambda: Simplex(), 3, 4),
    "simplex, of columns": Case(lambda: Simplex(-2), 3, 4),
    "ordered": Case(lambda: Ordered(), 3, 5),
    "ordered, vector": Case(lambda: Ordered(), 5),
    "distributions, less than": Case(
        lambda: FromDistributions(constraints.less_than(0.5)), 3, 4, without=SCRIPT | OVERFLOW
    ),
    "distributions, interval of tensors": Case(
        lambda: FromDistributions(
            constraints.independent(constraints.interval(torch.tensor([-1.0, 0.0]), 2.0), 1)
        ),
        3,
        2,
        **NO_SCRIPT,
    ),
    "distributions, simplex": Case(
        lambda: FromDistributions(constraints.simplex), 3, 4, **NO_SCRIPT
    ),
    "distributions, simplex by stick-breaking": Case(
        lambda: FromDistributions(constraints.simplex, bijective=True), 3, 4, **NO_SCRIPT
    ),
    "distributions, lower Cholesky": Case(
        lambda: FromDistributions(constraints.lower_cholesky), 3, 3, without=SCRIPT | OVERFLOW
    ),
    "distributions, parts": Case(
        lambda: FromDistributions(
            constraints.cat([constraints.positive, constraints.real], dim=-1, lengths=[1, 3])
        ),
        3,
        4,
        without=SCRIPT | OVERFLOW,
    ),
}
