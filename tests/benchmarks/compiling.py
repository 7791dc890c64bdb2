"""Compiled, scripted and exported models: calling them, and compiling them."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils import parametrize

import paramdesc
from tests.benchmarks.table import Goal, Table, main
from tests.benchmarks.timing import Clock, Series, clocked, in_turns
from tests.benchmarks.training import Cayley

__all__ = ["tables"]

TORCH, OURS, PLAIN, BY_HAND = "torch.nn.utils.parametrize", "paramdesc", "plain", "by hand"
ENGINES: dict[str, Any] = {TORCH: parametrize, OURS: paramdesc}
LAYERS = 12

M = TypeVar("M", bound=nn.Module)
Scope = Callable[[], AbstractContextManager[Any]]


def tables(quick: bool) -> Iterator[Table]:
    for size, batch in [(8, 2)] if quick else [(64, 32), (128, 64)]:
        yield scripted(size, batch, quick)
    for backend in ["eager"] if quick else ["eager", "inductor"]:
        yield regions(backend, quick)
    yield compile_times(quick)
    yield called_in_scope("eager" if quick else "inductor", quick)
    yield exported(quick)


class Cell(nn.Module):
    """One step of a recurrent network, which reads its kernel."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.input = nn.Linear(1, size)
        self.kernel = nn.Parameter(torch.randn(size, size) / size)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(self.input(x) + linear(state, self.kernel))


class HandedCell(Cell):
    """The same, which is handed its kernel."""

    def forward(self, x: Tensor, state: Tensor, kernel: Tensor) -> Tensor:  # type: ignore[override]
        return torch.tanh(self.input(x) + linear(state, kernel))


class Network(nn.Module):
    """Reads a sequence and answers with the norm of the last state."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.cell = self.new_cell(size)

    def new_cell(self, size: int) -> Cell:
        torch.manual_seed(0)
        return Cell(size)

    def forward(self, inputs: Tensor) -> Tensor:
        state = inputs.new_zeros([inputs.shape[1], self.size])
        for i in range(inputs.shape[0]):
            state = self.cell(inputs[i], state)
        return state.square().mean()


class ScopedNetwork(Network):
    """Opens a scope of paramdesc for its loop."""

    def forward(self, inputs: Tensor) -> Tensor:
        state = inputs.new_zeros([inputs.shape[1], self.size])
        with paramdesc.cached(self.cell):
            for i in range(inputs.shape[0]):
                state = self.cell(inputs[i], state)
        return state.square().mean()


class TorchScopedNetwork(Network):
    """Opens a scope of torch's engine for its loop."""

    def forward(self, inputs: Tensor) -> Tensor:
        state = inputs.new_zeros([inputs.shape[1], self.size])
        with parametrize.cached():
            for i in range(inputs.shape[0]):
                state = self.cell(inputs[i], state)
        return state.square().mean()


class NetworkByHand(Network):
    """Evaluates its kernel before the loop and hands it to the cell."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.evaluate = Cayley()

    def new_cell(self, size: int) -> Cell:
        torch.manual_seed(0)
        return HandedCell(size)

    def forward(self, inputs: Tensor) -> Tensor:
        state = inputs.new_zeros([inputs.shape[1], self.size])
        kernel = self.evaluate(self.cell.kernel)
        for i in range(inputs.shape[0]):
            state = self.cell(inputs[i], state, kernel)
        return state.square().mean()


def orthogonal(network: M, engine: Any = paramdesc) -> M:
    """The network with an orthogonal kernel in its cell."""
    engine.register_parametrization(network.get_submodule("cell"), "kernel", Cayley())
    return network


def script(model: nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit announces its end
        return torch.jit.script(model)


def scripted(size: int, batch: int, quick: bool) -> Table:
    """A recurrent network through `torch.jit.script`."""
    length, rounds = (3, 1) if quick else (100, 60)
    inputs = torch.randn(length, batch, 1)
    around = script(orthogonal(Network(size)))
    programs: dict[str, tuple[Any, Scope]] = {
        "plain, not orthogonal": (script(Network(size)), nullcontext),
        BY_HAND: (script(NetworkByHand(size)), nullcontext),
        f"{OURS}, scope in `forward`": (script(orthogonal(ScopedNetwork(size))), nullcontext),
        f"{OURS}, scope around the call": (around, lambda: paramdesc.cached(around)),
        f"{OURS}, no scope": (script(orthogonal(Network(size))), nullcontext),
    }
    cached = list(programs)[2:4]
    forward = measured(
        {name: prediction(program, inputs, scope) for name, (program, scope) in programs.items()},
        rounds,
    )
    training = measured(
        {name: step(program, inputs, scope) for name, (program, scope) in programs.items()},
        rounds,
    )
    return Table(
        f"A scripted recurrent network of size {size}",
        f"A cell that is looped over {length} steps with a batch of {batch}, through "
        f"`torch.jit.script`. Its {size} x {size} kernel is orthogonal by a Cayley map. By hand, "
        "the kernel is evaluated before the loop and handed to the cell. A training step is "
        "forward, backward and update. torch's engine cannot be scripted.",
        ("forward, times by hand", "milliseconds", "step, times by hand", "milliseconds"),
        {
            name: (
                forward.ratio(name, BY_HAND),
                forward.median(name) * 1e3,
                training.ratio(name, BY_HAND),
                training.median(name) * 1e3,
            )
            for name in programs
        },
        [
            Goal(f"{what}, {name}, in times by hand,", 1.05, series.ratio(name, BY_HAND))
            for name in cached
            for what, series in (("forward", forward), ("a training step", training))
        ],
    )


def measured(functions: dict[str, Callable[[], object]], rounds: int) -> Series:
    """All of them in turns, when what is compiled late is compiled."""
    for function in functions.values():
        for _ in range(3):
            function()
    return in_turns({name: clocked(function) for name, function in functions.items()}, rounds)


def prediction(model: Any, inputs: Tensor, scope: Scope = nullcontext) -> Callable[[], None]:
    def predict() -> None:
        with torch.no_grad(), scope():
            model(inputs)

    return predict


def step(model: Any, inputs: Tensor, scope: Scope = nullcontext) -> Callable[[], None]:
    """Forward, backward and update; the first two in a scope."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def train() -> None:
        optimizer.zero_grad()
        with scope():
            model(inputs).backward()
        optimizer.step()

    return train


# torch.compile


class Identity(nn.Module):
    """Nothing is left of it in a compiled graph."""

    def forward(self, X: Tensor) -> Tensor:
        return X


class Symmetric(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X.triu() + X.triu(1).mT


class Block(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x))


def separate(cls: type[M]) -> type[M]:
    """A class with code of its own: what is compiled, and counted as recompiled, is kept by code.

    So the cases of a table do not stand in one another's way.
    """
    old: Any = cls.forward
    forward = FunctionType(old.__code__.replace(), old.__globals__, old.__name__, old.__defaults__)
    return type(cls.__name__, (cls,), {"forward": forward})


def blocks(engine: Any, new_map: Callable[[], nn.Module], size: int) -> nn.Sequential:
    """Blocks with a parametrized layer each; without an engine, plain ones."""
    torch.manual_seed(0)
    block = separate(Block)
    model = nn.Sequential(*(block(size) for _ in range(LAYERS)))
    for layer in model.children() if engine is not None else ():
        engine.register_parametrization(layer.get_submodule("layer"), "weight", new_map())
    return model


def compiled_blocks(engine: Any, backend: str, limit: int, inputs: Tensor) -> nn.Sequential:
    """They, compiled one by one with that limit of recompiles, and called."""
    model = blocks(engine, Identity, inputs.shape[1])
    for layer in model.children():
        layer.compile(backend=backend)
    with torch._dynamo.config.patch(recompile_limit=limit):
        model(inputs)
    return model


def regions(backend: str, quick: bool) -> Table:
    """The call of layers that are compiled one by one."""
    size, batch, limit = 8, 4, torch._dynamo.config.recompile_limit
    inputs = torch.randn(batch, size, requires_grad=True)  # as all blocks after the first get
    fallback = f"{TORCH}, limit of {limit} recompiles"
    models = {
        PLAIN: compiled_blocks(None, backend, limit, inputs),
        fallback: compiled_blocks(parametrize, backend, limit, inputs),
        f"{TORCH}, limit raised": compiled_blocks(parametrize, backend, 2 * LAYERS, inputs),
        OURS: compiled_blocks(paramdesc, backend, limit, inputs),
    }

    def call(model: nn.Module) -> Callable[[], None]:
        def repeat() -> None:
            for _ in range(1 if quick else 20):
                model(inputs)

        return repeat

    series = measured({name: call(model) for name, model in models.items()}, 1 if quick else 61)
    times = 1 if quick else 20
    return Table(
        f"Calling {LAYERS} compiled layers, backend {backend}",
        f"One call of {LAYERS} blocks of size {size}, each compiled on its own, with the identity "
        "as the map of each weight, in calls of plain compiled ones. torch's engine gives each "
        f"layer a class, and each class takes a graph; after {limit} graphs the rest runs eagerly.",
        ("times plain", "microseconds"),
        {name: (series.ratio(name, PLAIN), series.median(name) / times * 1e6) for name in models},
        [Goal("the call, in calls of plain layers,", 1.15, series.ratio(OURS, PLAIN))],
    )


PROGRAM = "from tests.benchmarks.compiling import first_call; print(first_call({engine!r}))"


def first_call(engine: str) -> float:
    """Seconds that the first training step of a compiled model takes; to be asked in a fresh one.

    What torch imports for it is imported before.
    """
    inputs = torch.randn(2, 8)
    compile_and_step(nn.Linear(8, 8), inputs)
    model = blocks(ENGINES.get(engine), Symmetric, 8)
    start = time.process_time()
    compile_and_step(model, inputs)
    return time.process_time() - start


def compile_and_step(model: nn.Module, inputs: Tensor) -> None:
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    compiled(inputs).sum().backward()


def compilation(engine: str) -> Clock:
    def clock() -> float:
        command = [sys.executable, "-c", PROGRAM.format(engine=engine)]
        root = Path(__file__).parents[2]
        run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
        return float(run.stdout)

    return clock


def compile_times(quick: bool) -> Table:
    names = (PLAIN, TORCH, OURS)
    series = in_turns({name: compilation(name) for name in names}, 1 if quick else 11)
    return Table(
        f"Compiling a model of {LAYERS} layers",
        "The first training step of a model through `torch.compile`, backend aot_eager, with a "
        "symmetric weight in each layer: in a fresh process that has compiled something else "
        "before.",
        ("times plain", "milliseconds"),
        {name: (series.ratio(name, PLAIN), series.median(name) * 1e3) for name in names},
        [Goal("the time to compile, in torch's,", 1, series.ratio(OURS, TORCH))],
    )


def called_in_scope(backend: str, quick: bool) -> Table:
    """A compiled cell, called from an eager loop."""
    size, batch, length, rounds = (8, 2, 3, 1) if quick else (64, 32, 10, 61)
    inputs = torch.randn(length, batch, 1)

    def network(cls: type[Network], engine: Any = None) -> Network:
        model = cls(size)
        cell = separate(type(model.cell))
        model.cell.__class__ = cell
        if engine is not None:
            orthogonal(model, engine)
        model.cell.compile(backend=backend, fullgraph=True)
        return model

    cases: dict[str, Callable[[], object]] = {BY_HAND: step(network(NetworkByHand), inputs)}
    for name, engine in ENGINES.items():
        cases[f"{name}, in a scope"] = step(network(Network, engine), inputs, engine.cached)
        cases[f"{name}, no scope"] = step(network(Network, engine), inputs)
    series = measured(cases, rounds)
    return Table(
        f"A compiled cell, called {length} times in a scope",
        f"A training step of a recurrent network of size {size} with a batch of {batch}, whose "
        f"cell is compiled, backend {backend}, and whose loop and scope are eager. By hand, the "
        "kernel is evaluated before the loop and handed to the cell.",
        ("times by hand", "milliseconds"),
        {name: (series.ratio(name, BY_HAND), series.median(name) * 1e3) for name in cases},
        [
            Goal(
                "the step in a scope, in torch's,",
                1,
                series.ratio(f"{OURS}, in a scope", f"{TORCH}, in a scope"),
            )
        ],
    )


# torch.export


def exported(quick: bool) -> Table:
    """A recurrent network through `torch.export`, unrolled."""
    size, batch, length, rounds = (8, 2, 3, 1) if quick else (64, 32, 10, 101)
    inputs = torch.randn(length, batch, 1)
    networks = {
        BY_HAND: NetworkByHand(size),
        f"{TORCH}, scope in `forward`": orthogonal(TorchScopedNetwork(size), parametrize),
        f"{OURS}, scope in `forward`": orthogonal(ScopedNetwork(size)),
        f"{OURS}, no scope": orthogonal(Network(size)),
    }
    programs = {name: torch.export.export(model, (inputs,)) for name, model in networks.items()}
    maps = {
        name: sum("linalg_solve" in str(node.target) for node in program.graph.nodes)
        for name, program in programs.items()
    }
    series = measured(
        {name: prediction(program.module(), inputs) for name, program in programs.items()}, rounds
    )
    return Table(
        f"An exported recurrent network of size {size}",
        f"A network of {length} steps with a batch of {batch} through `torch.export`. By hand, "
        "the kernel is evaluated before the loop and handed to the cell.",
        ("evaluated maps in the graph", "call, times by hand", "milliseconds"),
        {
            name: (maps[name], series.ratio(name, BY_HAND), series.median(name) * 1e3)
            for name in networks
        },
        [
            Goal(
                "evaluated maps in a graph with a scope, in those by hand,",
                1,
                maps[f"{OURS}, scope in `forward`"] / maps[BY_HAND],
            )
        ],
    )


if __name__ == "__main__":
    main(tables, __doc__)
