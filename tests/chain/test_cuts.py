"""Which maps are applied to the shards of their originals, without gathering them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from paramdesc.chain.shards import find_cuts
from paramdesc.parametrizations import MaxNorm, Orthogonal, Positive, SpectralNorm

ROWS: Any = SimpleNamespace(dims=lambda: [0])


class Renamed(Positive):
    """Computes the same."""


class Sorted(Positive):
    """Needs all entries, which its base class does not know."""

    def forward(self, X: Tensor) -> Tensor:
        return super().forward(X).sort(dim=0).values


class Doubled(Positive):
    """Says itself that it does not."""

    def forward(self, X: Tensor) -> Tensor:
        return 2 * super().forward(X)

    def cuts(self, dim: int, ndim: int) -> Any:
        return super().cuts(dim, ndim)


@pytest.mark.parametrize("parametrization", [Positive(), MaxNorm(), Renamed(), Doubled()])
def test_a_map_that_splits_is_not_gathered(parametrization: Any) -> None:
    found = find_cuts(parametrization, ROWS, 2)
    assert found is not None
    assert len(found) == 1


@pytest.mark.parametrize(
    "parametrization", [Sorted(), MaxNorm(dim=0), Orthogonal(), SpectralNorm()]
)
def test_a_map_that_needs_all_entries_is_gathered(parametrization: Any) -> None:
    assert find_cuts(parametrization, ROWS, 2) is None
