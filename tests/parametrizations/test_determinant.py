"""`PositiveDeterminant` and `SpecialLinear`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.parametrizations.spectra.positive_determinant import PositiveDeterminant
from paramdesc.parametrizations.spectra.special_linear import SpecialLinear
from tests.helpers import chain_of, train_step

MAPS = [PositiveDeterminant, SpecialLinear]


def register(parametrization: nn.Module, X: Tensor) -> Any:
    module: Any = nn.Module()
    module.weight = nn.Parameter(X.clone())
    return register_parametrization(module, "weight", parametrization)


def oriented(*shape: int) -> Tensor:
    """Random matrices of positive determinant."""
    X = torch.randn(shape, dtype=torch.float64)
    X[..., 0, :] *= torch.linalg.det(X).sign().unsqueeze(-1)
    return X


@pytest.mark.parametrize("scale", [0.1, 3.0, 10.0])
def test_singular_values_stay_above_the_floor_and_the_determinant_positive(scale: float) -> None:
    torch.manual_seed(0)
    module = register(PositiveDeterminant(0.5), oriented(3, 6, 6))
    for _ in range(5):
        train_step(module, scale=scale)
        assert (torch.linalg.det(module.weight) > 0).all()
        assert (torch.linalg.svdvals(module.weight) >= 0.5 * (1 - 1e-9)).all()


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_determinant_stays_one(scale: float) -> None:
    torch.manual_seed(0)
    module = register(SpecialLinear(), oriented(3, 6, 6))
    for _ in range(5):
        train_step(module, scale=scale)
        value = module.weight.detach()
        condition = torch.linalg.cond(value, "fro").max()
        difference = (torch.linalg.det(value) - 1).abs().max()
        assert difference <= 10 * torch.finfo(value.dtype).eps * condition


def test_matrix_of_positive_determinant_is_kept_however_far_it_is_turned() -> None:
    for angle in torch.linspace(0, 6.2, 9, dtype=torch.float64).tolist():
        turn = torch.linalg.matrix_exp(angle * torch.tensor([[0, 1.0], [-1, 0]]).double())
        X = torch.kron(torch.eye(2).double(), turn) @ torch.diag(
            torch.tensor([4.0, 3, 2, 1]).double()
        )
        torch.testing.assert_close(register(PositiveDeterminant(), X).weight, X)


def test_negative_determinant_is_turned_over_in_its_smallest_direction() -> None:
    X = torch.diag(torch.tensor([3.0, -2.0, 1.0]))
    kept = torch.diag(torch.tensor([3.0, -2.0, -1.0]))
    torch.testing.assert_close(register(PositiveDeterminant(), X).weight, kept)
    torch.testing.assert_close(register(SpecialLinear(), X).weight, kept / 6 ** (1 / 3))


def test_singular_values_that_are_too_small_are_raised_to_the_floor() -> None:
    X = torch.diag(torch.tensor([3.0, 2.0, 0.0]))
    values = torch.linalg.svdvals(register(PositiveDeterminant(0.5), X).weight)
    torch.testing.assert_close(values, torch.tensor([3.0, 2.0, 0.5]))


def test_scaling_gives_determinant_one() -> None:
    X = oriented(2, 5, 5)
    expected = X / torch.linalg.det(X)[:, None, None] ** 0.2
    torch.testing.assert_close(register(SpecialLinear(), X).weight, expected)


def test_special_linear_takes_a_singular_matrix() -> None:
    for X in (torch.zeros(4, 4), torch.ones(4, 4)):
        value = register(SpecialLinear(), X.double()).weight
        torch.testing.assert_close(torch.linalg.det(value).item(), 1.0, atol=1e-6, rtol=0)


def test_any_rotation_and_stretching_is_reached_by_training() -> None:
    torch.manual_seed(0)
    module, target = register(PositiveDeterminant(), torch.eye(3).double()), oriented(3, 3)
    optimizer: Any = torch.optim.LBFGS(
        module.parameters(), max_iter=400, line_search_fn="strong_wolfe"
    )

    def loss() -> Any:
        optimizer.zero_grad()
        value = (module.weight - target).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(module.weight, target, atol=1e-3, rtol=0)


def test_strict_refuses_with_the_distance() -> None:
    module = register(PositiveDeterminant(), torch.eye(2))
    chain_of(module)[0].strict = True
    with pytest.raises(ValueError, match="not of positive determinant: it deviates by 0.25,"):
        module.weight = torch.diag(torch.tensor([2.0, -0.25]))
    module.weight = torch.diag(torch.tensor([2.0, 0.25]))
    special = register(SpecialLinear(), torch.eye(2))
    chain_of(special)[0].strict = True
    for singular in (torch.zeros(2, 2), torch.ones(2, 2)):
        with pytest.raises(ValueError, match="not of determinant one: it deviates by 1,"):
            special.weight = singular
    special.weight = torch.diag(torch.tensor([2.0, 0.5]))


@pytest.mark.parametrize("new_map", MAPS)
def test_shapes_and_dtypes_are_checked(new_map: Any) -> None:
    with pytest.raises(ValueError, match=r"square, .* Got shape \[3, 4\]"):
        register(new_map(), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="must be real. Got dtype torch.complex64"):
        register(new_map(), torch.zeros(3, 3, dtype=torch.complex64))
    register(new_map(), torch.zeros(3, 3))
