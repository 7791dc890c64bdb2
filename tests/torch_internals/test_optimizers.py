"""What the hooks around the steps of optimizers notice, hold and cost."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any, ClassVar
from weakref import ref

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.chain.parametrization import Parametrization
from paramdesc.chain.watched import watched_chains
from paramdesc.parametrizations import SpectralNorm
from paramdesc.torch_internals import optimizers
from paramdesc.torch_internals.optimizers import StepMade
from tests.helpers import chain_of, original_of


class CountsMoves(Parametrization):
    """A map whose state is how often it has moved."""

    warm_start: ClassVar[tuple[str, ...]] = ("moves",)
    moves: Tensor

    def guess(self, X: Tensor) -> tuple[Tensor, ...]:
        return (torch.zeros(()),)

    def refine(self, X: Tensor, moves: Tensor) -> tuple[Tensor, ...]:
        return (moves + 1,)

    def forward(self, X: Tensor) -> Tensor:
        self.follow(X)
        return 2 * X


def counting() -> tuple[Any, Callable[[], int]]:
    """A layer, and what reads its weight and says how often the state has moved."""
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", CountsMoves())

    def moves() -> int:
        assert layer.weight is not None
        return int(chain_of(layer)[0].moves)

    return layer, moves


FUSED: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, fused=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, fused=True),
    "SGD, not fused": lambda p: torch.optim.SGD(p, lr=0.1),
}


def scaled_step(layer: Any, optimizer: Any, scaler: Any, factor: float) -> None:
    optimizer.zero_grad()
    scaler.scale(layer(torch.ones(1, 3)).sum() * factor).backward()
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("name", FUSED)
def test_a_step_that_a_scaler_skips_moves_no_state(name: str, bad: float) -> None:
    layer, moves = counting()
    optimizer = FUSED[name](layer.parameters())
    scaler: Any = torch.amp.GradScaler("cpu", init_scale=4.0)
    before, original = moves(), original_of(layer).detach().clone()
    scaled_step(layer, optimizer, scaler, bad)
    assert torch.equal(original, original_of(layer).detach())
    assert moves() == before
    scaled_step(layer, optimizer, scaler, 1.0)
    assert not torch.equal(original, original_of(layer).detach())
    assert moves() == before + 1
    scaled_step(layer, optimizer, scaler, bad)
    assert moves() == before + 1


@pytest.mark.parametrize("fill", [float("nan"), float("inf")])
def test_numbers_that_equal_nothing_move_no_state_at_a_read(fill: float) -> None:
    layer, moves = counting()
    with torch.no_grad():
        original_of(layer)[0] = fill
    before = moves()
    assert [moves() for _ in range(4)] == [before] * 4
    original_of(layer).data.add_(1)
    assert moves() == before + 1
    assert moves() == before + 1


def test_a_row_that_becomes_not_a_number_is_one_step() -> None:
    layer, moves = counting()
    before = moves()
    original_of(layer).data[0] = float("nan")
    assert [moves() for _ in range(3)] == [before + 1] * 3


class Raises(torch.optim.Optimizer):
    """Fails in the middle of a step."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        raise RuntimeError("no step today")


def failing_step(layer: nn.Module) -> ref[Any]:
    optimizer = Raises(layer.parameters())
    with pytest.raises(RuntimeError, match="no step today"):
        optimizer.step()
    return ref(optimizer)


def test_an_optimizer_whose_step_raised_is_freed() -> None:
    layer, moves = counting()
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = moves()
    optimizer = failing_step(layer)
    gc.collect()  # torch's own references to an optimizer are circular
    assert optimizer() is None
    assert moves() == before
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    assert optimizers._RUNNING.steps == []
    assert moves() == before + 1


# what a step costs


def steps_of_plain_parameters(n: int = 300) -> Callable[[], object]:
    parameters = [nn.Parameter(torch.ones(4)) for _ in range(n)]
    for parameter in parameters:
        parameter.grad = torch.ones(4)
    return torch.optim.SGD(parameters, lr=0.1).step


def calls_of(function: Callable[[], object]) -> int:
    """How many calls of functions, written in Python or in C, it makes."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    function()  # what is made once only
    gc.disable()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def warm_layers(n: int) -> list[nn.Module]:
    return [P.register_parametrization(nn.Linear(3, 3), "weight", SpectralNorm()) for _ in range(n)]


def test_a_step_of_a_plain_model_costs_little_for_each_watched_chain() -> None:
    gc.collect()
    step = steps_of_plain_parameters()
    others = len(watched_chains())
    few = warm_layers(10)
    with_few = calls_of(step)
    more = warm_layers(90)
    assert len(watched_chains()) - others == len(few) + len(more)
    assert 0 < calls_of(step) - with_few < 60 * 90


def test_calls_for_each_plain_parameter_do_not_grow_with_the_chains() -> None:
    gc.collect()
    small, large = steps_of_plain_parameters(100), steps_of_plain_parameters(300)
    few = warm_layers(10)
    for_few = calls_of(large) - calls_of(small)
    more = warm_layers(90)
    assert len(few) + len(more) == 100
    assert abs((calls_of(large) - calls_of(small)) - for_few) <= 20


@pytest.fixture
def steps_made() -> Any:
    """The steps that are told while the test runs."""
    told: list[StepMade] = []
    optimizers._LISTENERS.append(told.append)
    yield told
    optimizers._LISTENERS.remove(told.append)


def test_where_plain_parameters_are_is_never_asked(steps_made: list[StepMade]) -> None:
    layers = warm_layers(10)
    with torch.no_grad(), P.cached(*layers):
        assert all(layer.weight is layer.weight for layer in layers)
        steps_of_plain_parameters()()
        assert all(layer.weight is layer.weight for layer in layers)
    (step,) = steps_made
    assert len(step.parameters) == 300
    assert "places" not in vars(step)
    assert "flattened" not in vars(step) or not step.flattened


def test_where_parameters_are_is_asked_for_parts_of_a_flat_buffer(
    steps_made: list[StepMade],
) -> None:
    """The right neighbor: the optimizer has the buffer, the chain a part of it."""
    layer, moves = counting()
    flat = nn.Parameter(torch.ones(12))
    original_of(layer).data = flat.data[:9].view(3, 3)
    before = moves()
    flat.grad = torch.ones(12)
    torch.optim.SGD([flat], lr=0.1).step()
    (step,) = steps_made
    assert "places" in vars(step)
    assert moves() == before + 1
