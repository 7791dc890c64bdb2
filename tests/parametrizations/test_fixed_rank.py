"""`FixedRank`: the rank is kept whatever the originals become."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from paramdesc import register_parametrization
from paramdesc.parametrizations.spectra.fixed_rank import FixedRank
from paramdesc.parametrizations.spectra.low_rank import LowRank
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
    with pytest.raises(ValueError, match="not of the given rank: it deviates by 0.4,"):
        module.weight = torch.diag(torch.tensor([1.0, 0.1, 0.0, 0.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="not of the given rank: it deviates by 0.2,"):
        module.weight = torch.diag(torch.tensor([1.0, 0.5, 0.2, 0.0], dtype=torch.float64))
    module.weight = torch.diag(torch.tensor([1.0, 0.5, 0.0, 0.0], dtype=torch.float64))


# the base point


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 5, 5), (4, 4)])
def test_moving_the_base_point_keeps_the_value(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module: Any = nn.Module()
    module.weight = nn.Parameter(torch.randn(shape, dtype=dtype))
    register_parametrization(module, "weight", FixedRank(3, floor=0.5))
    train_step(module, scale=0.1)
    before = module.weight.detach()
    chain_of(module).move_base()
    torch.testing.assert_close(module.weight, before)
    assert not chain_of(module).original1.any()


@pytest.mark.parametrize(("optimizer", "rate"), [("SGD", 3.0), ("Adam", 0.1)])
def test_a_moving_base_point_completes_a_matrix(optimizer: str, rate: float) -> None:
    torch.manual_seed(0)
    target = torch.randn(12, 2) @ torch.randn(2, 10)
    known = torch.rand(12, 10) < 0.7
    module = parametrized(FixedRank(2), 12, 10).float()
    stepper = getattr(torch.optim, optimizer)(module.parameters(), lr=rate)
    for _ in range(600):
        stepper.zero_grad()
        loss = (module.weight - target)[known].square().mean()
        loss.backward()
        stepper.step()
    assert loss.item() < 1e-8


def test_near_the_base_point_the_gradient_is_that_of_balanced_factors() -> None:
    torch.manual_seed(0)
    Y = with_singular_values(torch.tensor([9.0, 1.0], dtype=torch.float64), 6, 4)
    direction, sizes = torch.randn(6, 4), []
    for parametrization in (FixedRank(2), LowRank(2)):
        module: Any = nn.Module()
        module.weight = nn.Parameter(Y.clone())
        register_parametrization(module, "weight", parametrization)
        (module.weight * direction).sum().backward()
        gradients = [x.grad for x in chain_of(module).originals()]
        sizes.append(torch.cat([x.flatten() for x in gradients]).norm().item())
    assert 0.5 < sizes[0] / sizes[1] < 2


def test_state_dicts_and_pickles_without_scales_keep_their_value() -> None:
    torch.manual_seed(0)
    old = parametrized(FixedRank(2), 5, 4)
    del chain_of(old)[0]._buffers["scale"]
    chain_of(old)[0].register_buffer("scale", None)
    with torch.no_grad():
        for original in chain_of(old).originals():
            original.add_(torch.randn_like(original))
    value, state = old.weight.detach(), copy.deepcopy(old.state_dict())
    assert not any("scale" in name for name in state)

    module = parametrized(FixedRank(2), 5, 4)
    module.load_state_dict(state, strict=True)
    assert module.weight.equal(value)
    module.weight = value
    torch.testing.assert_close(module.weight, value)
    new = parametrized(FixedRank(2), 5, 4)
    old.load_state_dict(new.state_dict(), strict=True)
    assert old.weight.equal(new.weight)

    module.load_state_dict(state, strict=True)
    del chain_of(module)[0]._buffers["scale"]  # as in a pickle of that time
    assert pickle.loads(pickle.dumps(module)).weight.equal(value)


def test_without_scales_the_formula_is_that_of_earlier_versions() -> None:
    torch.manual_seed(0)
    module = parametrized(FixedRank(2, floor=0.5), 5, 4)
    parametrization = chain_of(module)[0]
    U, Vh = parametrization.left, parametrization.right
    A, B = torch.randn(5, 2).double(), torch.randn(2, 4).double()
    parametrization.scale = None
    M, I = U.mT @ A, torch.eye(2).double()  # noqa: E741
    H, K = (M + M.mT) / 2, (M - M.mT) / 2
    C = (H @ H + 0.5 * I) @ torch.linalg.solve(I - K, I + K)
    expected = (A + U @ (C - M)) @ (B + (I - B @ Vh.mT) @ Vh)
    torch.testing.assert_close(parametrization(A, B), expected)


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
