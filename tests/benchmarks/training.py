"""The training step of a recurrent network whose kernel is orthogonal."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils import parametrize

import paramdesc
from tests.benchmarks.table import Goal, Table, main
from tests.benchmarks.timing import clocked, in_turns

__all__ = ["tables"]

BY_HAND = "by hand, evaluated once"
CACHED = "paramdesc, cached"


class Cayley(nn.Module):
    """`(*, n, n) -> (*, n, n)`, orthogonal: `(I - A)⁻¹ (I + A)` with `A = X - Xᵀ`."""

    def forward(self, X: Tensor) -> Tensor:
        A = X - X.mT
        identity = torch.eye(X.shape[-1], dtype=X.dtype)
        Y: Tensor = torch.linalg.solve(identity - A, identity + A)
        return Y


class Cell(nn.Module):
    """One step; it reads its kernel, unless it is handed one."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.input = nn.Linear(1, size)
        self.kernel = nn.Parameter(torch.randn(size, size) / size)

    def forward(self, x: Tensor, state: Tensor, kernel: Tensor | None = None) -> Tensor:
        return torch.tanh(self.input(x) + linear(state, self.kernel if kernel is None else kernel))


class Network(nn.Module):
    """Reads a sequence and answers with the norm of the last state."""

    def __init__(self, size: int, evaluate: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = Cell(size)
        self.evaluate = evaluate

    def forward(self, inputs: Tensor) -> Tensor:
        state = inputs.new_zeros(inputs.shape[1], self.cell.input.out_features)
        kernel = None if self.evaluate is None else self.evaluate(self.cell.kernel)
        for x in inputs:
            state = self.cell(x, state, kernel)
        return state.square().mean()


def training_step(
    network: nn.Module,
    inputs: Tensor,
    scope: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Callable[[], None]:
    """Forward, backward and update; the first two in a scope."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        with scope():
            network(inputs).backward()
        optimizer.step()

    return step


def tables(quick: bool) -> Iterator[Table]:
    for size, batch in [(8, 2)] if quick else [(64, 32), (128, 64)]:
        yield steps(size, batch, 3 if quick else 100, quick)


def registered(size: int, engine: Any, new_map: Callable[[], nn.Module]) -> Network:
    network = Network(size)
    engine.register_parametrization(network.cell, "kernel", new_map())
    return network


def steps(size: int, batch: int, length: int, quick: bool) -> Table:
    inputs = torch.randn(length, batch, 1)
    fast = {
        "plain, not orthogonal": training_step(Network(size), inputs),
        BY_HAND: training_step(Network(size, Cayley()), inputs),
    }
    slow = {}
    for name, engine in (("torch.nn.utils.parametrize", parametrize), ("paramdesc", paramdesc)):
        network = registered(size, engine, Cayley)
        fast[f"{name}, cached"] = training_step(network, inputs, engine.cached)
        slow[f"{name}, uncached"] = training_step(registered(size, engine, Cayley), inputs)
    with contextlib.suppress(ModuleNotFoundError):
        geotorch: Any = importlib.import_module("geotorch")
        network = Network(size)
        geotorch.orthogonal(network.cell, "kernel", triv="cayley")
        fast["geotorch, cached by torch"] = training_step(network, inputs, parametrize.cached)

    clocks = {name: clocked(step) for name, step in fast.items()}
    series = in_turns(clocks, 1 if quick else 60)
    others = in_turns(
        {BY_HAND: clocks[BY_HAND], **{name: clocked(step) for name, step in slow.items()}},
        1 if quick else 7,
    )
    measured = dict.fromkeys(fast, series) | dict.fromkeys(slow, others)
    return Table(
        f"A training step of a recurrent network of size {size}",
        f"Forward, backward and update of a cell that is looped over {length} steps with a batch "
        f"of {batch}. Its {size} x {size} kernel is orthogonal by a Cayley map. In steps of the "
        "same network with the kernel evaluated before the loop and handed to the cell.",
        ("times by hand", "milliseconds"),
        {
            name: (found.ratio(name, BY_HAND), found.median(name) * 1e3)
            for name, found in measured.items()
        },
        [Goal("the cached step, in steps by hand,", 1.03, series.ratio(CACHED, BY_HAND))],
    )


if __name__ == "__main__":
    main(tables, __doc__)
