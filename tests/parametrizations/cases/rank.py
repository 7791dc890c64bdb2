"""Rank and spectrum."""

from __future__ import annotations

import torch

from paramdesc.parametrizations.spectra.correlation import Correlation
from paramdesc.parametrizations.spectra.fixed_rank import FixedRank
from paramdesc.parametrizations.spectra.gram import Gram
from paramdesc.parametrizations.spectra.lora import LoRA
from paramdesc.parametrizations.spectra.low_rank import LowRank
from paramdesc.parametrizations.spectra.positive_definite import PositiveDefinite
from paramdesc.parametrizations.spectra.positive_determinant import PositiveDeterminant
from paramdesc.parametrizations.spectra.positive_semidefinite import PositiveSemidefinite
from paramdesc.parametrizations.spectra.rank_one import RankOne
from paramdesc.parametrizations.spectra.special_linear import SpecialLinear
from paramdesc.parametrizations.spectra.stable import HurwitzStable, SchurStable
from tests.parametrizations.cases.case import Case

__all__ = ["CASES"]


def complex_matrix() -> torch.Tensor:
    return torch.randn(3, 3, dtype=torch.complex64)


CASES: dict[str, Case] = {
    "low rank, tall": Case(lambda: LowRank(2), 5, 3),
    "low rank, wide complex": Case(
        lambda: LowRank(2), weight=lambda: torch.randn(3, 4, dtype=torch.complex64)
    ),
    "low rank, full": Case(lambda: LowRank(3), 3, 3, right_inverse="identity"),
    "rank one": Case(lambda: RankOne(), 4, 3),
    "rank one, a row": Case(lambda: RankOne(), 1, 3, right_inverse="identity"),
    "fixed rank, tall": Case(lambda: FixedRank(2), 5, 3),
    "fixed rank, square": Case(lambda: FixedRank(3), 4, 4),
    "fixed rank, wide complex": Case(
        lambda: FixedRank(2), weight=lambda: torch.randn(3, 5, dtype=torch.complex64)
    ),
    "positive definite": Case(lambda: PositiveDefinite(), 4, 4),
    "positive definite, stack": Case(lambda: PositiveDefinite(0.1), 2, 3, 3),
    "positive definite, by a square factor": Case(lambda: PositiveDefinite(triangular=False), 4, 4),
    "positive definite, complex": Case(lambda: PositiveDefinite(), weight=complex_matrix),
    "positive definite, 1 x 1": Case(
        lambda: PositiveDefinite(), 1, 1, without={"strict": "each second number is positive"}
    ),
    "positive semidefinite": Case(lambda: PositiveSemidefinite(), 4, 4),
    "positive semidefinite, of low rank": Case(lambda: PositiveSemidefinite(2), 4, 4),
    "positive semidefinite, complex": Case(lambda: PositiveSemidefinite(2), weight=complex_matrix),
    "positive semidefinite, of fixed rank": Case(lambda: PositiveSemidefinite(2, fixed=True), 4, 4),
    "positive semidefinite, of fixed rank, complex": Case(
        lambda: PositiveSemidefinite(2, fixed=True), weight=complex_matrix
    ),
    "gram": Case(lambda: Gram(), 4, 4),
    "gram, columns, complex": Case(lambda: Gram(columns=True), weight=complex_matrix),
    "correlation": Case(lambda: Correlation(), 4, 4),
    "correlation, complex": Case(lambda: Correlation(), weight=complex_matrix),
    "positive determinant": Case(
        lambda: PositiveDeterminant(),
        4,
        4,
        without={"strict": "this random one has a positive determinant"},
    ),
    "positive determinant, stack": Case(lambda: PositiveDeterminant(), 2, 3, 3),
    "special linear": Case(lambda: SpecialLinear(), 4, 4),
    "special linear, 1 x 1": Case(
        lambda: SpecialLinear(), 1, 1, without={"gradient": "the value is constant, one"}
    ),
    "hurwitz stable": Case(lambda: HurwitzStable(0.1), 4, 4),
    "hurwitz stable, complex": Case(
        lambda: HurwitzStable(), weight=lambda: complex_matrix() / 2 - torch.eye(3)
    ),
    "schur stable": Case(lambda: SchurStable(), 4, 4),
    "schur stable, complex": Case(lambda: SchurStable(0.9), weight=lambda: complex_matrix() / 4),
    "lora": Case(lambda: LoRA(2, 4.0), 5, 3, right_inverse="identity"),
    "lora, experts": Case(lambda: LoRA(1), 2, 3, 4, right_inverse="identity"),
    "lora, convolution": Case(
        lambda: LoRA(2, flatten=True), 4, 3, 2, 2, right_inverse="identity", batch=False
    ),
    "lora, complex": Case(lambda: LoRA(2), weight=complex_matrix, right_inverse="identity"),
}
