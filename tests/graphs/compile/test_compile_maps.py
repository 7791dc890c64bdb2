"""`torch.compile`: every map in one graph, trained as in eager code."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.parametrizations import SpectralNorm, Symmetric
from tests.graphs.backend import READS_GRAD, Graphs
from tests.graphs.compile.models import INPUT, assert_same
from tests.helpers import Double, Sum, linear, train_step

pytestmark = READS_GRAD


class Scaled(nn.Module):
    """A buffer, parametrized, multiplies the input; a parameter as well, to have a gradient."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale * self.weight


def chain_of_two() -> nn.Module:
    return P.register_parametrization(linear(Symmetric()), "weight", SpectralNorm())


def function_map() -> nn.Module:
    module = nn.Linear(3, 3)
    return P.register_parametrization(module, "weight", torch.neg, right_inverse=torch.neg)


def several_tensors() -> nn.Module:
    return P.register_parametrization(linear(Symmetric()), "bias", Double())


def parametrized_buffer() -> nn.Module:
    return P.register_parametrization(Scaled(), "scale", torch.exp)


def complex_weight() -> nn.Module:
    module = nn.Linear(3, 3, dtype=torch.complex64)
    return P.register_parametrization(module, "weight", Symmetric())


def convolution() -> nn.Module:
    return P.register_parametrization(nn.Conv1d(2, 4, 3), "weight", SpectralNorm())


def recurrent() -> nn.Module:
    return P.register_parametrization(nn.GRUCell(3, 3), "weight_hh", torch.tanh)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "Symmetric": lambda: linear(Symmetric()),
    "SpectralNorm": lambda: linear(SpectralNorm()),
    "a chain": chain_of_two,
    "several originals": lambda: linear(Sum()),
    "a function": function_map,
    "two tensors": several_tensors,
    "a buffer": parametrized_buffer,
    "complex": complex_weight,
    "a convolution": convolution,
    "a recurrent cell": recurrent,
}


def input_of(module: nn.Module) -> Tensor:
    return next(module.parameters()).detach().new_ones(2, 3)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", MODULES)
def test_every_map_is_one_graph_with_and_without_a_scope(name: str, backend: str) -> None:
    module, graphs = MODULES[name]().eval(), Graphs(backend)
    compiled, x = graphs.compile(module), input_of(module)
    for _ in range(2):
        assert_same(module, compiled, x)
    with P.cached(module):
        for _ in range(2):
            assert_same(module, compiled, x)
    assert_same(module, compiled, x)
    assert len(graphs.evaluations) == 2


@pytest.mark.parametrize("scoped", [False, True])
@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("name", MODULES)
def test_compiled_training_is_eager_training(name: str, calls: int, scoped: bool) -> None:
    torch.manual_seed(0)
    module = MODULES[name]()
    twin = copy.deepcopy(module)
    compiled, x = Graphs("aot_eager").compile(module), input_of(module)
    for function, parameters in ((compiled, module.parameters()), (twin, twin.parameters())):
        optimizer = torch.optim.SGD(parameters, lr=0.01)
        with P.cached() if scoped else nullcontext():
            for _ in range(3):
                optimizer.zero_grad()
                output = torch.stack([function(x) for _ in range(calls)])
                torch.autograd.backward((output * output.conj()).real.sum())
                optimizer.step()
    torch.testing.assert_close(module.state_dict(), twin.state_dict())


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own
def test_inductor_compiles_a_chain_with_and_without_a_scope() -> None:
    module = chain_of_two().eval()
    compiled: Any = torch.compile(module, fullgraph=True)
    assert_same(module, compiled, INPUT)
    with P.cached(module) as scope:
        for _ in range(3):
            assert_same(module, compiled, INPUT)
            train_step(module)
    assert scope.misses >= 3
