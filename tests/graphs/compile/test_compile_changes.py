"""What changes in compiled code, or between its calls, is seen in a scope around them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.parametrizations import SpectralNorm
from tests.graphs.backend import READS_GRAD, Graphs
from tests.graphs.compile.models import INPUT, assert_same
from tests.helpers import linear, original_of

pytestmark = READS_GRAD


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_an_optimizer_step_in_the_scope_evaluates_anew_in_the_same_graph(
    backend: str, layer: nn.Linear
) -> None:
    graphs, twin = Graphs(backend), copy.deepcopy(layer)
    compiled = graphs.compile(layer)
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.01) for module in (layer, twin)]
    with P.cached() as scope:
        for _ in range(4):
            for module, optimizer in zip((compiled, twin), optimizers, strict=True):
                optimizer.zero_grad()
                (module(INPUT) + module(INPUT)).sum().backward()
                optimizer.step()
            torch.testing.assert_close(original_of(layer), original_of(twin))
    assert graphs.evaluations == [0]
    assert scope.misses == 2 * 4


def write_in_place(original: Tensor) -> None:
    original.mul_(2)


def write_to_a_view(original: Tensor) -> None:
    original.view(-1)[0].mul_(2)


def write_uncounted(original: Tensor) -> None:
    torch._foreach_mul_([original], 2.0)  # while this is traced, torch counts no write


def write_out(original: Tensor) -> None:
    torch.mul(original.clone(), 2, out=original)


@pytest.mark.parametrize(
    "write", [write_in_place, write_to_a_view, write_uncounted, write_out], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_write_in_the_compiled_code_is_seen(
    write: Callable[[Tensor], None], backend: str, layer: nn.Linear
) -> None:
    original = original_of(layer)
    before = original.detach().clone()

    def run(x: Tensor) -> list[Tensor]:
        with torch.no_grad():
            first = layer(x)
            write(original)
            return [first, layer(x)]

    def run_thrice(function: Callable[[Tensor], list[Tensor]]) -> list[list[Tensor]]:
        with torch.no_grad():
            original.copy_(before)
            with P.cached(layer):
                return [function(INPUT) for _ in range(3)]

    torch.testing.assert_close(run_thrice(Graphs(backend).compile(run)), run_thrice(run))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_write_to_the_value_in_the_compiled_code_is_seen(backend: str, layer: nn.Linear) -> None:
    def run(x: Tensor) -> Any:
        layer.weight.mul_(2)
        return layer(x)

    compiled = Graphs(backend).compile(run)
    with torch.no_grad():
        expected = layer(INPUT)
        for function in (run, compiled):
            with P.cached(layer):
                for _ in range(3):
                    torch.testing.assert_close(function(INPUT), expected)


class Stretched(nn.Module):
    """A map with attributes of many kinds."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.factor = 2.0
        self.shift = torch.ones(3, 3)
        self.register_buffer("mask", torch.ones(3, 3))

    def forward(self, X: Tensor) -> Tensor:
        result = X * self.factor * self.mask + self.shift
        return -result if self.training else result


def change_a_number(stretched: Stretched) -> None:
    stretched.factor = stretched.factor + 1


def change_a_tensor(stretched: Stretched) -> None:
    stretched.shift = stretched.shift + 1


def change_a_buffer(stretched: Stretched) -> None:
    stretched.mask = stretched.mask + 1


def write_to_a_buffer(stretched: Stretched) -> None:
    stretched.mask.add_(1)


def switch_training(stretched: Stretched) -> None:
    stretched.train(not stretched.training)


@pytest.mark.parametrize(
    "change",
    [change_a_number, change_a_tensor, change_a_buffer, write_to_a_buffer, switch_training],
    ids=lambda f: f.__name__,
)
def test_a_changed_map_is_seen(change: Callable[[Stretched], None]) -> None:
    def run_thrice(compiles: bool) -> list[Any]:
        torch.manual_seed(0)
        stretched = Stretched()
        layer = linear(stretched)

        def run(x: Tensor) -> list[Tensor]:
            first = layer(x)
            change(stretched)
            return [first, layer(x)]

        function = Graphs().compile(run) if compiles else run
        with P.cached(layer):
            assert layer.weight is not None
            return [function(INPUT) for _ in range(3)]

    torch.testing.assert_close(run_thrice(True), run_thrice(False))


def test_a_map_that_two_tensors_share_moves_as_in_eager_code() -> None:
    def train(compiles: bool) -> Any:
        torch.manual_seed(0)
        first = linear(SpectralNorm())
        model = nn.Sequential(first, P.transfer_parametrizations_and_params(first, nn.Linear(3, 3)))
        function = Graphs("aot_eager").compile(model) if compiles else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with P.cached(model):
            for _ in range(3):
                optimizer.zero_grad()
                function(INPUT).square().sum().backward()
                optimizer.step()
        return model.state_dict()

    torch.testing.assert_close(train(True), train(False))


def test_conversions_and_freezing_compile_for_the_new_kind(layer: nn.Linear) -> None:
    graphs = Graphs("aot_eager")
    compiled = graphs.compile(layer)
    with P.cached(layer):
        assert_same(layer, compiled, INPUT)
        layer.double()
        assert_same(layer, compiled, INPUT.double())
        layer.float()
        original_of(layer).requires_grad_(False)
        torch.testing.assert_close(compiled(INPUT), layer(INPUT))
        original_of(layer).requires_grad_(True)
        assert_same(layer, compiled, INPUT)
    assert graphs.evaluations == [0, 0, 0]
