"""Training with deferred gradients: optimizers, autocast with a scaler, and recurrence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.caching.active import active_scopes
from paramdesc.parametrizations import Symmetric
from tests.caching.deferred.comparing import assert_same, default_dtype
from tests.caching.deferred.loops import accumulate, backward, batches, loss_of, trained
from tests.caching.deferred.models import two_layers


def scaled_steps(model: Any, scope: Any, infinite_at: int = -1) -> list[float]:
    """A loop with autocast, GradScaler and clipping; the scales that it goes through."""
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scales = []
    for step in range(3):
        optimizer.zero_grad()
        for batch in batches():
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model(batch))
            backward(scaler.scale(loss * float("inf") if step == infinite_at else loss))
        if scope is not None:
            scope.backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return scales


@pytest.mark.parametrize("infinite_at", [-1, 1])
def test_steps_with_autocast_and_a_scaler_are_the_same(infinite_at: int) -> None:
    torch.manual_seed(0)
    model, expected = two_layers(), two_layers()
    expected.load_state_dict(model.state_dict())
    start = expected.state_dict()["0.bias"].clone()
    scales = scaled_steps(expected, None, infinite_at)
    with P.cached(model, deferred=True) as scope:
        assert scaled_steps(model, scope, infinite_at) == scales
    assert (128.0 in scales) == (infinite_at == 1)
    assert not torch.equal(expected.state_dict()["0.bias"], start)
    for name, x in expected.state_dict().items():
        # a sum in another order may round to the other bfloat16 in the next step
        torch.testing.assert_close(model.state_dict()[name], x, rtol=1e-3, atol=1e-4)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "plain": lambda x: torch.optim.AdamW(x, foreach=False),
    "foreach": lambda x: torch.optim.AdamW(x, foreach=True),
    "fused": lambda x: torch.optim.AdamW(x, fused=True),
    "fused SGD": lambda x: torch.optim.SGD(x, lr=0.01, fused=True),
}


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_in_one_scope_is_the_same(
    make_optimizer: Callable[[Any], torch.optim.Optimizer],
) -> None:
    def loop(model: Any) -> None:
        optimizer = make_optimizer(model.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            accumulate(model)
            for scope in active_scopes():
                scope.backward()
            optimizer.step()

    with default_dtype(torch.float64):
        model, expected = trained(two_layers, loop, True), trained(two_layers, loop, False)
    for name, x in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], x, rtol=1e-9, atol=0)


class Recurrent(nn.Module):
    """A loop over a cell, or nn.LSTM as it is, in windows."""

    def __init__(self, steps: bool = False, network: bool = False) -> None:
        super().__init__()
        self.has_steps = steps
        cell: Any = nn.LSTM(3, 4) if network else nn.RNNCell(3, 4)
        name, parametrization = (
            ("weight_hh_l0", nn.Tanh()) if network else ("weight_hh", Symmetric())
        )
        self.cell = P.register_parametrization(cell, name, parametrization)

    def forward(self, x: Tensor, state: Any) -> Any:
        if isinstance(self.cell, nn.RNNCell):
            for _ in range(3):
                state = self.cell(x, state)
            return state, state
        return self.cell(x.unsqueeze(0).expand(3, -1, -1), state)


def truncated(model: Recurrent) -> None:
    """Backpropagation through time, by windows of three steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    state: Any = None
    for batch in batches():
        output, state = model(batch, state)
        backward(loss_of(output))
        state = tuple(x.detach() for x in state) if isinstance(state, tuple) else state.detach()
        if model.has_steps:
            for scope in active_scopes():
                scope.backward()
            optimizer.step()  # the gradients are not reset, so they tell of all windows


@pytest.mark.parametrize("network", [False, True], ids=["RNNCell", "LSTM"])
@pytest.mark.parametrize("steps", [False, True], ids=["one step after", "steps inside"])
def test_truncated_backpropagation_gives_the_same(steps: bool, network: bool) -> None:
    assert_same(lambda: Recurrent(steps, network), truncated)


def test_a_cell_is_evaluated_once_for_all_windows() -> None:
    model = Recurrent()
    with P.cached(model, deferred=True) as scope:
        truncated(model)
    assert (scope.misses, scope.hits) == (1, 11)


def test_a_network_keeps_no_leaf_of_a_scope_that_is_over() -> None:
    model = Recurrent(network=True)
    for _ in range(2):
        with P.cached(model, deferred=True):
            truncated(model)
    truncated(model)
