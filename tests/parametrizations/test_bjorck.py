"""`Bjorck`: orthogonal to the accuracy that is asked for, and never longer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.errors import ConstraintError
from paramdesc.linalg.polar import polar
from paramdesc.parametrizations import Bjorck, bjorck


def matrix(m: int, n: int, condition: float) -> Tensor:
    """A matrix of the given condition number."""
    torch.manual_seed(0)
    U, _, Vh = torch.linalg.svd(torch.randn(m, n, dtype=torch.float64), full_matrices=False)
    S = torch.logspace(0, -torch.tensor(condition).log10().item(), min(m, n), dtype=torch.float64)
    X: Tensor = U @ torch.diag(S) @ Vh
    return X


@pytest.mark.parametrize("shape", [(30, 30), (40, 7), (7, 40)])
@pytest.mark.parametrize("accuracy", [1e-2, 1e-3, 1e-6])
@pytest.mark.parametrize("condition", [2.0, 100.0, 1e5])
def test_singular_values_are_within_the_accuracy(
    shape: tuple[int, int], accuracy: float, condition: float
) -> None:
    X = matrix(*shape, condition)
    Y = Bjorck(accuracy, condition=condition)(7 * X)
    values = torch.linalg.svdvals(Y)
    assert values.max() <= 1 + 1e-12
    assert values.min() >= 1 - accuracy
    assert torch.linalg.matrix_norm(Y - polar(X), 2) <= 2 * accuracy


def test_smaller_singular_values_are_left_below_one() -> None:
    values = torch.linalg.svdvals(Bjorck(1e-3, condition=10)(matrix(20, 20, 1e6)))
    assert values.max() <= 1 + 1e-12
    assert values.min() < 0.1


def test_a_better_accuracy_takes_more_iterations() -> None:
    counts = [Bjorck(accuracy).count(64) for accuracy in (1e-2, 1e-3, 1e-9)]
    assert counts == sorted(set(counts))
    assert Bjorck().count(64) == 16
    assert Bjorck(condition=1e5).count(64) - Bjorck().count(64) == 17


def test_the_nearest_is_registered_and_others_are_refused_if_strict() -> None:
    layer: Any = bjorck(nn.Linear(4, 3), accuracy=1e-4)
    torch.testing.assert_close(layer.weight @ layer.weight.T, torch.eye(3), rtol=0, atol=1e-3)
    with pytest.raises(ConstraintError, match="orthogonal to the given accuracy"):
        register_parametrization(nn.Linear(3, 3), "weight", Bjorck(strict=True))


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="accuracy must be between 0 and 1"):
        Bjorck(0)
    with pytest.raises(ValueError, match="condition must be above 1"):
        Bjorck(condition=1)
    with pytest.raises(ValueError, match="orthogonal matrices are"):
        Bjorck()(torch.ones(3))
    assert repr(Bjorck(0.5, condition=3)) == "Bjorck(accuracy=0.5, condition=3)"
