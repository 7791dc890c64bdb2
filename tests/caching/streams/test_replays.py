"""Replays train as eager code does, with operations on a CPU that are recorded and repeated."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.linalg import devices
from paramdesc.parametrizations import Orthogonal, SpectralNorm, Symmetric, WeightNorm
from tests.caching.streams.device import Device

SIZE = 6
MAPS: dict[str, Callable[[], nn.Module]] = {
    "symmetric": Symmetric,
    "weight norm": WeightNorm,
    "orthogonal": lambda: Orthogonal("cayley"),
    "orthogonal, base point moves": lambda: Orthogonal("cayley", rebase=2),
    "spectral norm": SpectralNorm,
}


@pytest.fixture(autouse=True)
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps take the algorithms for a GPU. Those for a CPU look at numbers."""
    monkeypatch.setattr(devices, "COUNTED_BY_SIZE", frozenset({"meta"}))


def model_with(make: Callable[[], nn.Module]) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Tanh(), nn.Linear(SIZE, SIZE)).double()
    for layer in (model[0], model[2]):
        P.register_parametrization(layer, "weight", make().double())
    return model


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)


def training_step(model: Any, optimizer: Any, x: Tensor, scope: Callable[..., Any]) -> Any:
    optimizer.zero_grad()
    with scope(model):
        loss = (model(x) - model(0.5 * x) + x).square().mean()
        loss.backward()
    optimizer.step()
    return loss


SCOPES: dict[str, Callable[..., Any]] = {
    "uncached": lambda model: P.cached(set()),
    "cached": P.cached,
    "deferred": lambda model: P.cached(model, deferred=True),
}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", MAPS)
def test_a_captured_training_step(device: Device, name: str, scope: str) -> None:
    captured, eager = model_with(MAPS[name]), model_with(MAPS[name])
    one, other = optimizer_of(captured), optimizer_of(eager)
    x = torch.randn(8, SIZE, dtype=torch.float64)
    for _ in range(2):
        for model, optimizer in ((captured, one), (eager, other)):
            training_step(model, optimizer, x, SCOPES[scope])
    one.zero_grad()
    with device.capture(record=True) as graph:
        loss = training_step(captured, one, x, SCOPES[scope])
    for _ in range(4):
        with torch.no_grad():
            x.copy_(torch.randn_like(x))
        graph.replay()
        torch.testing.assert_close(loss, training_step(eager, other, x, SCOPES[scope]))
        torch.testing.assert_close(captured.state_dict(), eager.state_dict())


def test_evaluations_between_replays(device: Device) -> None:
    model = model_with(Symmetric)
    optimizer = optimizer_of(model)
    x = torch.randn(8, SIZE, dtype=torch.float64)
    training_step(model, optimizer, x, P.cached)
    optimizer.zero_grad()
    with device.capture(record=True) as graph:
        training_step(model, optimizer, x, P.cached)
    model.eval()
    kept = P.cached(model, persistent=True)
    P.auto_cache(model)
    with torch.no_grad():
        for _ in range(3):
            graph.replay()
            with kept:
                assert torch.equal(model[0].weight, model[0].parametrizations.weight())
                assert model[0].weight is model[0].weight
            assert torch.equal(model(x), copy.deepcopy(model)(x))
    assert kept._lasting is not None


def test_a_captured_forward_pass_follows_an_eager_optimizer(device: Device) -> None:
    layer: Any = nn.Linear(SIZE, SIZE, bias=False).double()
    P.register_parametrization(layer, "weight", SpectralNorm(n_power_iterations=1).double())
    original = layer.parametrizations.weight.original
    with device.capture(record=True) as graph:  # no step is pending
        value = layer.weight.detach()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    for _ in range(60):
        original.grad = 0.05 * torch.randn_like(original)
        optimizer.step()
        graph.replay()
    assert abs(torch.linalg.matrix_norm(value, 2).item() - 1) < 0.05
