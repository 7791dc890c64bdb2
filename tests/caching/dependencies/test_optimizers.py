"""A step of any optimizer is noticed, whether or not torch counts what it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.caching.dependencies.kinds import KINDS, Weight, weighing
from tests.helpers import Double, original_of


class WritesData(torch.optim.Optimizer):
    """As some third-party optimizers do: it writes to `.data`."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.sub_(parameter.grad)


class StepAndZero(torch.optim.Adam):
    """Clears the gradients at the end of its step."""

    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        self.zero_grad()
        return result


def zeroing_by_hook(parameters: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(parameters, lr=0.1, fused=True)
    optimizer.register_step_post_hook(lambda o, *_: o.zero_grad())
    return optimizer


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, foreach=False),
    "foreach Adam": lambda p: torch.optim.Adam(p, lr=0.1, foreach=True),
    "fused SGD": lambda p: torch.optim.SGD(p, lr=0.1, fused=True),
    "fused Adam": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "fused, step() clears the gradients": lambda p: StepAndZero(p, lr=0.1, fused=True),
    "fused, a hook clears the gradients": zeroing_by_hook,
    "writes to .data": WritesData,
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1),
}


def train(layer: Weight, optimizer: torch.optim.Optimizer) -> None:
    """One step, as a loop makes it, with the loss outside of any call of the model."""

    def closure() -> float:
        for parameter in layer.parameters():
            parameter.grad = torch.ones_like(parameter)
        return 1.0

    closure()
    optimizer.step(closure if isinstance(optimizer, torch.optim.LBFGS) else None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_noticed(name: str, kind: str) -> None:
    layer = weighing(Double())
    optimizer = OPTIMIZERS[name](layer.parameters())
    with KINDS[kind](layer) as read:
        before = read()
        assert read() is before
        old = before.detach().clone()
        with torch.inference_mode(False), torch.no_grad():
            train(layer, optimizer)
        after = read().detach()
        assert not torch.equal(after, old)
        assert torch.equal(after, 2 * original_of(layer).detach())


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_with_other_parameters_ends_nothing(kind: str) -> None:
    layer, other = weighing(Double()), nn.Linear(3, 3)
    optimizer = torch.optim.Adam(other.parameters(), lr=0.1, fused=True)
    for parameter in other.parameters():
        parameter.grad = torch.ones_like(parameter)
    with KINDS[kind](layer) as read:
        before = read()
        optimizer.step()
        assert read() is before


@pytest.mark.parametrize("fused", [False, True])
def test_a_model_with_auto_cache_may_be_tuned_in_evaluation_mode(fused: bool) -> None:
    layer = weighing(Double())
    with KINDS["auto_cache"](layer) as read:
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, fused=fused)
        read()
        torch.autograd.backward(layer.forward().square().sum())  # not by a call: no scope opens
        optimizer.step()
        assert torch.equal(read(), 2 * original_of(layer).detach())


class Skips(torch.optim.Optimizer):
    """Writes nothing this time, as a scaler does after an overflow."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_the_versions_of_parameters_are_torchs_own(kind: str) -> None:
    layer, plain = weighing(Double()), nn.Linear(3, 3)
    with KINDS[kind](layer) as read:
        read()
        with torch.inference_mode(False), torch.enable_grad():
            loss = (torch.ones(1, 3, requires_grad=True) @ plain.weight).square().sum()
            plain.weight.grad = torch.ones(3, 3)
            Skips([plain.weight, original_of(layer)]).step()
            torch.autograd.backward(loss)  # would raise if the version had been raised
