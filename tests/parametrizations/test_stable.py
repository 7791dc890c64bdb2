"""`HurwitzStable` and `SchurStable`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.linalg.lyapunov import solve_lyapunov, solve_stein
from paramdesc.parametrizations.spectra.stable import HurwitzStable, SchurStable
from tests.helpers import chain_of, train_step

DTYPES = [torch.float64, torch.complex128]


def register(parametrization: nn.Module, X: Tensor) -> Any:
    module: Any = nn.Module()
    module.weight = nn.Parameter(X.clone())
    return register_parametrization(module, "weight", parametrization)


def abscissa(X: Tensor) -> Tensor:
    largest: Tensor = torch.linalg.eigvals(X).real.amax(-1)
    return largest


def radius(X: Tensor) -> Tensor:
    largest: Tensor = torch.linalg.eigvals(X).abs().amax(-1)
    return largest


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_stability_is_kept_with_its_margin(dtype: torch.dtype, scale: float) -> None:
    torch.manual_seed(0)
    flow = register(HurwitzStable(0.3, floor=1e-3), torch.randn(2, 5, 5, dtype=dtype))
    step = register(SchurStable(0.9, floor=1e-3), torch.randn(2, 5, 5, dtype=dtype))
    for _ in range(5):
        train_step(flow, scale=scale)
        train_step(step, scale=scale)
        assert (abscissa(flow.weight) <= -0.3 - 0.5e-3 + 1e-9).all()
        assert (radius(step.weight) < 0.9).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_stable_matrices_are_kept(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    X = torch.randn(2, 6, 6, dtype=dtype)
    flow = X - (abscissa(X) + 0.5)[:, None, None] * torch.eye(6)
    torch.testing.assert_close(register(HurwitzStable(0.2), flow).weight, flow)
    step = 0.7 * X / radius(X)[:, None, None]
    torch.testing.assert_close(register(SchurStable(0.8), step).weight, step)


def test_defective_matrices_are_kept() -> None:
    block = torch.diag(torch.ones(4, dtype=torch.float64), 1)
    flow, step = block - torch.eye(5), 0.5 * block + 0.5 * torch.eye(5)
    torch.testing.assert_close(register(HurwitzStable(), flow).weight, flow)
    torch.testing.assert_close(register(SchurStable(), step).weight, step)
    torch.testing.assert_close(register(SchurStable(), block).weight, block)  # nilpotent


@pytest.mark.parametrize("dtype", DTYPES)
def test_slow_and_fast_modes_are_kept_to_the_last_digits(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    basis = torch.eye(8) + 0.2 * torch.randn(4, 8, 8, dtype=dtype)
    rates = -torch.logspace(0, -5, 8, dtype=torch.float64).to(dtype)
    flow = basis * rates @ torch.linalg.inv(basis)
    weight = register(HurwitzStable(floor=1e-9), flow).weight
    torch.testing.assert_close(weight, flow, rtol=0, atol=1e-13)
    step = torch.linalg.matrix_exp(flow)
    weight = register(SchurStable(floor=1e-9), step).weight
    torch.testing.assert_close(weight, step, rtol=0, atol=1e-13)


def test_unstable_matrices_are_shifted_or_scaled() -> None:
    X = torch.diag(torch.tensor([2.0, 1.0, -4.0], dtype=torch.float64))
    flow = register(HurwitzStable(0.5), X).weight
    size = 4.5 - 1.0  # of the spectrum plus the margin
    torch.testing.assert_close(flow, X - (2.5 + 0.01 * size) * torch.eye(3, dtype=X.dtype))
    torch.testing.assert_close(register(SchurStable(2.0), X).weight, 0.99 * X / 2)


def test_zero_becomes_stable() -> None:
    zero = torch.zeros(3, 3, dtype=torch.float64)
    torch.testing.assert_close(
        register(HurwitzStable(), zero).weight, -1e-5 * torch.eye(3).double()
    )
    torch.testing.assert_close(register(SchurStable(), zero).weight, zero)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lyapunov_equation_holds_and_agrees_with_the_kronecker_form(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    A = torch.randn(4, 4, dtype=dtype) - 4 * torch.eye(4)
    W, identity = solve_lyapunov(A), torch.eye(4, dtype=dtype)
    torch.testing.assert_close(A.mH @ W + W @ A, -identity)
    system = torch.kron(A.mH.contiguous(), identity) + torch.kron(identity, A.mT.contiguous())
    torch.testing.assert_close(W.flatten(), torch.linalg.solve(system, -identity.flatten()))


def test_stein_equation_holds_for_a_stack() -> None:
    torch.manual_seed(0)
    Z, C = torch.randn(3, 4, 4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    Z = Z * torch.tensor([0.5, 0.99, 0.9999])[:, None, None] / radius(Z)[:, None, None]
    W = solve_stein(Z, C)
    torch.testing.assert_close(Z.mT @ W @ Z + C, W)


def test_strict_refuses_with_the_excess() -> None:
    flow = register(HurwitzStable(0.5), -torch.eye(2))
    chain_of(flow)[0].strict = True
    with pytest.raises(ValueError, match="not stable: it deviates by 0.75,"):
        flow.weight = torch.diag(torch.tensor([0.25, -1.0]))
    step = register(SchurStable(), torch.zeros(2, 2))
    chain_of(step)[0].strict = True
    with pytest.raises(ValueError, match="radius less than the bound: it deviates by 0.5,"):
        step.weight = torch.diag(torch.tensor([0.25, -1.5]))
    step.weight = torch.diag(torch.tensor([0.25, -0.5]))


def test_systems_decay() -> None:
    torch.manual_seed(0)
    flow = register(HurwitzStable(0.1), torch.randn(5, 5, dtype=torch.float64)).weight
    assert torch.linalg.matrix_exp(400 * flow).norm() < 1e-6
    step = register(SchurStable(0.9), torch.randn(5, 5, dtype=torch.float64)).weight
    assert torch.linalg.matrix_power(step, 400).norm() < 1e-6


def test_arguments_and_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="margin must be finite and not negative. Got margin=-1"):
        HurwitzStable(-1.0)
    with pytest.raises(ValueError, match="bound must be positive and finite. Got bound=0"):
        SchurStable(0.0)
    for parametrization in (HurwitzStable(), SchurStable()):
        with pytest.raises(ValueError, match=r"square, .* Got shape \[3, 4\]"):
            register(parametrization, torch.zeros(3, 4))
