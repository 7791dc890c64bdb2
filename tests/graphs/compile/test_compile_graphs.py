"""How often torch compiles: one graph for all modules of a class."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import paramdesc as P
from tests.graphs.backend import READS_GRAD, Graphs
from tests.graphs.compile.models import INPUT, assert_same
from tests.helpers import Exp, linear, torch_linear

pytestmark = READS_GRAD


@pytest.mark.parametrize("dynamic", [None, True])
def test_shapes_of_the_input_compile_as_often_as_for_a_plain_module(dynamic: bool | None) -> None:
    counts = []
    for module in (nn.Linear(3, 3), linear(Exp())):
        torch.compiler.reset()  # what it has learned of shapes
        graphs = Graphs("aot_eager")
        compiled = graphs.compile(module, dynamic=dynamic)
        for n in (2, 4, 5, 6, 7):
            compiled(torch.ones(n, 3))
        counts.append(len(graphs.evaluations))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("dynamic", [None, True])
def test_a_scope_compiles_for_all_shapes_of_the_input(
    dynamic: bool | None, layer: nn.Linear
) -> None:
    graphs = Graphs("aot_eager")
    compiled = graphs.compile(layer, dynamic=dynamic)
    for _ in range(2):
        with P.cached(layer):
            for n in (2, 4, 5, 6, 7):
                assert_same(layer, compiled, torch.ones(n, 3))
    assert graphs.evaluations == [0] * (1 if dynamic else 2)


@pytest.mark.parametrize("count", [12, 100])
def test_modules_of_one_class_share_their_graphs(count: int) -> None:
    graphs = Graphs("aot_eager")
    layers = nn.Sequential(*(linear(Exp()) for _ in range(count)))
    for module in layers:
        module.compile(backend=graphs, fullgraph=True)
    small = (INPUT / 100).requires_grad_()  # as what the first of them returns
    layers(small)
    assert graphs.evaluations == [1]
    with P.cached(layers) as scope:
        layers(small)
        layers(small)
    assert graphs.evaluations == [1, 0]
    assert (scope.misses, scope.hits) == (count, count)
    layers(small)
    assert graphs.evaluations == [1, 0]


def test_modules_that_are_compiled_one_by_one_share_a_graph_too() -> None:
    # beside it torch's engine, which gives each module a class of its own
    counts = []
    for make in (linear, torch_linear):
        torch.compiler.reset()
        graphs = Graphs()
        for _ in range(3):
            graphs.compile(make(Exp()))(INPUT)
        counts.append(len(graphs.evaluations))
    assert counts == [1, 3]
