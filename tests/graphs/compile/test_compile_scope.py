"""A scope around the calls of compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from tests.graphs.backend import READS_GRAD, Graphs
from tests.graphs.compile.models import INPUT, assert_same
from tests.helpers import Exp, original_of, train_step

pytestmark = READS_GRAD


def test_a_compiled_module_is_evaluated_once_for_each_eager_scope(
    graphs: Graphs, layer: nn.Linear
) -> None:
    compiled = graphs.compile(layer)
    compiled(INPUT)
    for _ in range(3):
        before = Exp.evaluations
        with P.cached(layer) as scope:
            for _ in range(5):
                compiled(INPUT)
        assert Exp.evaluations == before + 1
        assert (scope.misses, scope.hits) == (1, 4)
    compiled(INPUT)
    assert graphs.evaluations == [1, 0]


@pytest.mark.parametrize("how", ["a module", "a method", "a closure", "an argument"])
def test_all_ways_to_compile_find_the_scope(how: str, graphs: Graphs, layer: nn.Linear) -> None:
    def closed_over(x: Tensor) -> Any:
        return layer(layer(x))

    def taken(module: nn.Module, x: Tensor) -> Any:
        return module(module(x))

    call: Callable[[Tensor], Any]
    if how == "a module":
        call = graphs.compile(layer)
    elif how == "a method":
        layer.compile(backend=graphs, fullgraph=True)
        call = layer
    elif how == "a closure":
        call = graphs.compile(closed_over)
    else:
        compiled = graphs.compile(taken)

        def call(x: Tensor) -> Any:
            return compiled(layer, x)

    call(INPUT)
    with P.cached(layer) as scope:
        call(INPUT)
        call(INPUT)
    assert graphs.evaluations[1:] == [0]
    assert scope.misses == 1


def test_the_value_is_that_of_eager_code(graphs: Graphs, layer: nn.Linear) -> None:
    compiled = graphs.compile(lambda: layer.weight)
    with P.cached(layer) as scope:
        weight = layer.weight
        for _ in range(2):
            assert compiled() is weight
    assert scope.misses == 1


def test_two_reads_in_a_graph_are_one_tensor(graphs: Graphs, layer: nn.Linear) -> None:
    compiled = graphs.compile(lambda: (layer.weight is layer.weight, layer.weight))
    with P.cached(layer):
        assert compiled() == (True, layer.weight)


def test_a_value_that_is_returned_is_the_one_that_was_read(
    graphs: Graphs, layer: nn.Linear
) -> None:
    original = original_of(layer)

    def read_and_write(x: Tensor) -> tuple[Tensor, Tensor]:
        weight = layer.weight
        with torch.no_grad():
            original.mul_(2)
        return x + 1, weight  # not alone: then torch fetches it before the graph runs

    compiled = graphs.compile(read_and_write)
    with P.cached(layer):
        for _ in range(3):
            expected = original.detach().exp()
            _, weight = compiled(INPUT)
            torch.testing.assert_close(weight.detach(), expected)


def test_two_backward_passes_and_one_outside_of_the_scope(layer: nn.Linear) -> None:
    graphs, original = Graphs("aot_eager"), original_of(layer)
    compiled = graphs.compile(layer)
    with P.cached() as scope:
        for times in (1, 2):
            compiled(INPUT).sum().backward()
            (expected,) = torch.autograd.grad(layer(INPUT).sum(), original)
            torch.testing.assert_close(original.grad, times * expected)
        loss = compiled(INPUT).sum()
    loss.backward()
    torch.testing.assert_close(original.grad, 3 * expected)
    assert scope.misses == 4 + 1  # a consumed graph is not used again
    assert graphs.evaluations == [0]


def test_modes_of_the_call_have_values_of_their_own(graphs: Graphs, layer: nn.Linear) -> None:
    compiled = graphs.compile(layer)
    with P.cached(layer):
        with torch.no_grad():
            assert not compiled(INPUT).requires_grad
        assert_same(layer, compiled, INPUT)
        with torch.autocast("cpu"):
            assert compiled(INPUT).dtype == torch.bfloat16
        assert_same(layer, compiled, INPUT)
    assert graphs.evaluations == [0, 0, 0]


def test_inference_mode_evaluates_once(layer: nn.Linear) -> None:
    graphs = Graphs("aot_eager")
    compiled = graphs.compile(layer)
    with torch.inference_mode():
        expected = layer(INPUT)
        for _ in range(2):
            with P.cached(layer) as scope:
                for _ in range(4):
                    torch.testing.assert_close(compiled(INPUT), expected)
            assert scope.misses == 1
    assert graphs.evaluations == [0]


def test_other_modes_inside_of_the_compiled_code_evaluate_in_the_graph(layer: nn.Linear) -> None:
    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            y: Tensor = layer(x)
        with torch.autocast("cpu"):
            z: Tensor = layer(x)
        result: Tensor = y + z
        return result

    graphs = Graphs("aot_eager")
    compiled = graphs.compile(run)
    with P.cached(layer):
        expected = run(INPUT)
        for _ in range(2):
            output = compiled(INPUT)
            torch.testing.assert_close(output, expected)
            torch.testing.assert_close(
                torch.autograd.grad(output.sum(), original_of(layer)),
                torch.autograd.grad(run(INPUT).sum(), original_of(layer)),
            )
    assert graphs.evaluations == [2]


@pytest.mark.parametrize("parametrization", [nn.Identity(), nn.Flatten(0), nn.Unflatten(0, (3, 1))])
def test_a_value_may_share_memory_with_its_original(parametrization: nn.Module) -> None:
    module = nn.Linear(3, 3)
    P.register_parametrization(module, "weight", parametrization, unsafe=True)

    def run(x: Tensor) -> Tensor:
        result: Tensor = x.sum() * module.weight.square().sum() + original_of(module).sum()
        return result

    compiled = Graphs("aot_eager").compile(run)
    with P.cached(module):
        for _ in range(3):
            expected, output = run(INPUT), compiled(INPUT)
            torch.testing.assert_close(output, expected)
            torch.testing.assert_close(
                torch.autograd.grad(output, original_of(module)),
                torch.autograd.grad(run(INPUT), original_of(module)),
            )
            train_step(module)
