"""`torch.compile`"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.functional import linear

from tests.helpers import Double
from tests.worlds.case import Case, of_linear, of_loop, of_scoped_loop
from tests.worlds.checks import WrongError, check_close, check_evaluated_once
from tests.worlds.engines import Engine
from tests.worlds.maps import Exp

__all__ = [
    "aot_eager",
    "assigning",
    "compiled_autograd",
    "dynamic_shapes",
    "eager",
    "hundred_blocks",
    "inductor",
    "registering",
    "scope_around",
    "scope_around_recompiles",
    "scope_inside",
    "training",
    "twelve_blocks",
    "twelve_layers",
]


class Graphs:
    """A backend that counts the graphs that it is given, and runs them as they are."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: GraphModule, inputs: Any) -> Callable[..., Any]:
        self.count += 1
        return graph.forward

    def check_at_most(self, count: int) -> None:
        if self.count > count:
            raise WrongError(f"{self.count} graphs")


def check_compiled(case: Case, backend: Any) -> None:
    case.check(torch.compile(case.model, backend=backend, fullgraph=True))


def eager(engine: Engine) -> None:
    """`fullgraph=True`, backend eager"""
    check_compiled(of_loop(engine), "eager")


def aot_eager(engine: Engine) -> None:
    """`fullgraph=True`, backend aot_eager"""
    check_compiled(of_loop(engine), "aot_eager")


def inductor(engine: Engine) -> None:
    """`fullgraph=True`, backend inductor"""
    check_compiled(of_linear(engine), "inductor")


def dynamic_shapes(engine: Engine) -> None:
    """one graph for inputs of all lengths"""
    case, graphs = of_loop(engine), Graphs()
    compiled = torch.compile(case.model, backend=graphs, fullgraph=True, dynamic=True)
    for length in (2, 3, 5):
        case.inputs = [torch.rand(length, 3)]
        case.check(compiled)
    graphs.check_at_most(1)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x))


def check_regions(engine: Engine, plain: nn.Sequential, name: str) -> None:
    names = [f"{i}.{name}" for i in range(len(plain))]
    for weight in map(plain.get_parameter, names):
        nn.init.constant_(weight, -1.2)  # the outputs stay of one size through all layers
    case, graphs = Case(engine, plain, names), Graphs()
    for layer in case.model:
        layer.compile(backend=graphs)
    case.check(case.model)
    graphs.check_at_most(1)


def twelve_layers(engine: Engine) -> None:
    """one graph for 12 layers, compiled one by one"""
    check_regions(engine, nn.Sequential(*(nn.Linear(3, 3) for _ in range(12))), "weight")


def twelve_blocks(engine: Engine) -> None:
    """one graph for 12 blocks that have a parametrized layer, compiled one by one"""
    check_regions(engine, nn.Sequential(*(Block() for _ in range(12))), "layer.weight")


def hundred_blocks(engine: Engine) -> None:
    """one graph for 100 such blocks"""
    check_regions(engine, nn.Sequential(*(Block() for _ in range(100))), "layer.weight")


def training(engine: Engine) -> None:
    """one graph for the whole training, with assignments and `load_state_dict`"""
    case, graphs = Case(engine, nn.Linear(3, 3), ["weight"], maps=(Double,)), Graphs()
    compiled = torch.compile(case.model, backend=graphs, fullgraph=True)
    case.check(compiled)
    case.model.weight = torch.eye(3)
    case.check(compiled)
    case.model.load_state_dict({name: x + 1 for name, x in case.model.state_dict().items()})
    case.check(compiled)
    graphs.check_at_most(1)


def scope_inside(engine: Engine) -> None:
    """`cached` inside the compiled `forward`: evaluated once"""
    case = of_scoped_loop(engine)
    # aot_eager itself would merge several evaluations
    compiled: Any = torch.compile(case.model, backend="eager", fullgraph=True)
    case.check(compiled)
    check_evaluated_once(lambda: compiled(*case.inputs))


def in_scope(engine: Engine, case: Case, compiled: Any) -> Callable[[Tensor], Tensor]:
    """A function that calls a compiled model three times in a scope."""

    def run(x: Tensor) -> Tensor:
        with engine.cached(case.model):
            for _ in range(2):
                compiled(x)
            y: Tensor = compiled(x)
        return y

    return run


def scope_around(engine: Engine) -> None:
    """`cached` around the calls of a compiled model: evaluated once"""
    case = of_loop(engine)
    compiled = torch.compile(case.model, backend="eager", fullgraph=True)
    run = in_scope(engine, case, compiled)
    for function in (compiled, run, compiled):
        case.check(function)
    check_evaluated_once(lambda: run(*case.inputs))


def scope_around_recompiles(engine: Engine) -> None:
    """`cached` around the calls of a compiled model: at most one recompile, ever"""
    case, graphs = of_loop(engine), Graphs()
    compiled = torch.compile(case.model, backend=graphs, fullgraph=True)
    for function in (compiled, in_scope(engine, case, compiled), compiled):
        case.check(function)
    graphs.check_at_most(2)


def registering(engine: Engine) -> None:
    """registering and removing inside the compiled code"""
    layer, x, functions = nn.Linear(3, 3), torch.rand(2, 3), engine.module
    before = layer(x)
    expected = linear(x, layer.weight.exp(), layer.bias)

    @torch.compile(backend="eager")
    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        functions.register_parametrization(layer, "weight", Exp())
        parametrized = layer(x)
        functions.remove_parametrizations(layer, "weight", leave_parametrized=False)
        return parametrized, layer(x)

    for _ in range(2):
        check_close(run(x), (expected, before), "wrong outputs")
    if functions.is_parametrized(layer):
        raise WrongError("still parametrized")


def assigning(engine: Engine) -> None:
    """assigning inside the compiled code"""
    case = Case(engine, nn.Linear(3, 3), ["weight"], maps=(Double,))

    @torch.compile(backend="eager")
    def run(weight: Tensor, x: Tensor) -> Tensor:
        case.model.weight = weight
        return case.model(x)  # type: ignore[no-any-return]

    (x,) = case.inputs
    for weight in (torch.eye(3), torch.ones(3, 3)):
        check_close(run(weight, x), linear(x, weight, case.model.bias), "wrong outputs")
        check_close(case.original().detach(), weight / 2, "a wrong original")


def compiled_autograd(engine: Engine) -> None:
    """compiled autograd"""
    case = of_loop(engine)

    @torch.compile(backend="aot_eager")
    def step(x: Tensor) -> Tensor:
        y: Tensor = case.model(x)
        torch.autograd.backward(y.square().sum())
        return y

    with torch._dynamo.config.patch(compiled_autograd=True):
        case.check_step(step)
