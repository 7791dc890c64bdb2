"""`FixedRank`: the rank is kept whatever the originals become."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from paramdesc import register_parametrization
from paramdesc.parametrizations.spectra.fixed_rank import FixedRank
from paramdesc.parametrizations.spectra.positive_semidefinite import PositiveSemidefinite
from tests.helpers import chain_of, train_step
from tests.parametrizations.test_low_rank import with_singular_values


def parametrized(parametrization: nn.Module, *shape: int) -> Any:
    module: Any = nn.Module()
    module.weight = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    return register_parametrization(module, "weight", parametrization)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 5, 5), (4, 4)])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_singular_values_stay_above_the_floor(shape: tuple[int, ...], scale: float) -> None:
    torch.manual_seed(0)
    module = parametrized(FixedRank(3, floor=0.5), *shape)
    for _ in range(5):
        train_step(module, scale=scale)
        S = torch.linalg.svdvals(module.weight)
        assert (S[..., 2] >= 0.5 * (1 - 1e-9)).all()
        assert (S[..., 3:] <= 1e-12 * S[..., :1]).all()


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_nearest_matrix_has_its_singular_values_truncated_and_raised(
    shape: tuple[int, int],
) -> None:
    X = with_singular_values(torch.tensor([3.0, 2.0, 0.25, 0.1], dtype=torch.float64), *shape)
    module = parametrized(FixedRank(3, floor=0.5), *shape)
    module.weight = X
    expected = torch.tensor([3.0, 2.0, 0.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(module.weight), expected)
    distance = torch.tensor([0.25, 0.1], dtype=torch.float64).norm()
    torch.testing.assert_close((module.weight - X).norm(), distance)


def test_each_matrix_of_that_rank_nearby_is_reached() -> None:
    torch.manual_seed(0)
    module = parametrized(FixedRank(2), 5, 4)
    module.weight = with_singular_values(torch.tensor([2.0, 1.0], dtype=torch.float64), 5, 4)
    U, S, Vh = torch.linalg.svd(module.weight.detach())
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64))
    left, right = U[:, :2] + 0.3 * torch.randn(5, 2), Vh[:2] + 0.3 * torch.randn(2, 4)
    target = left @ turn @ S[:2].diag() @ right
    optimizer: Any = torch.optim.LBFGS(
        module.parameters(), max_iter=300, line_search_fn="strong_wolfe"
    )

    def loss() -> Any:
        optimizer.zero_grad()
        value = (module.weight - target).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(module.weight, target, atol=1e-3, rtol=0)


def test_zero_becomes_the_least_matrix_of_that_rank() -> None:
    module = parametrized(FixedRank(2, floor=0.5), 4, 3)
    module.weight = torch.zeros(4, 3, dtype=torch.float64)
    expected = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(module.weight), expected)


def test_strict_refuses_a_lower_rank_and_a_higher_one() -> None:
    module = parametrized(FixedRank(2, floor=0.5), 4, 4)
    chain_of(module)[0].strict = True
    with pytest.raises(ValueError, match="not of that rank: it deviates by 0.4,"):
        module.weight = torch.diag(torch.tensor([1.0, 0.1, 0.0, 0.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="not of that rank: it deviates by 0.2,"):
        module.weight = torch.diag(torch.tensor([1.0, 0.5, 0.2, 0.0], dtype=torch.float64))
    module.weight = torch.diag(torch.tensor([1.0, 0.5, 0.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_semidefinite_of_fixed_rank_keeps_its_eigenvalues(scale: float) -> None:
    torch.manual_seed(0)
    module = parametrized(PositiveSemidefinite(2, fixed=True, floor=0.5), 3, 5, 5)
    for _ in range(5):
        train_step(module, scale=scale)
        values = torch.linalg.eigvalsh(module.weight)
        assert (values[..., -2] >= 0.5 * (1 - 1e-9)).all()
        assert (values[..., :-2].abs() <= 1e-12 * values[..., -1:]).all()


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="rank must be positive"):
        FixedRank(0)
    with pytest.raises(ValueError, match="floor must be positive and finite. Got floor=0.0"):
        FixedRank(1, floor=0.0)
    with pytest.raises(ValueError, match="rank=4 is more than"):
        parametrized(FixedRank(4), 5, 3)
    with pytest.raises(ValueError, match="fixed=True needs a rank"):
        PositiveSemidefinite(fixed=True)
