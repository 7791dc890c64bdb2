"""Trains maps with a base point for 100,000 steps, and writes what is left of their accuracy.

`python -m tests.benchmarks.long_training` writes the table into docs/guide/base_points.md.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from paramdesc import register_parametrization
from paramdesc.chain.parametrization import Parametrization
from paramdesc.parametrizations import (
    AlmostOrthogonal,
    FixedRank,
    Grassmann,
    Normal,
    Orthogonal,
    PositiveDeterminant,
    SpecialLinear,
    SpecialOrthogonal,
    Sphere,
    Symplectic,
    TorchOrthogonal,
)

__all__ = ["MAPS", "accuracy", "drift"]

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "base_points.md"
MARK = "<!-- python -m tests.benchmarks.long_training -->\n"
STEPS = 100_000

MAPS: dict[str, tuple[Callable[[], Parametrization], tuple[int, int]]] = {
    '`Orthogonal("cayley")`': (Orthogonal, (16, 16)),
    '`Orthogonal("cayley")`, tall': (Orthogonal, (24, 8)),
    '`Orthogonal("matrix_exp")`': (lambda: Orthogonal("matrix_exp"), (16, 16)),
    "`SpecialOrthogonal()`": (SpecialOrthogonal, (16, 16)),
    "`Grassmann()`": (Grassmann, (24, 8)),
    "`AlmostOrthogonal(0.1)`": (AlmostOrthogonal, (16, 16)),
    "`Normal()`": (Normal, (16, 16)),
    "`Symplectic()`": (Symplectic, (16, 16)),
    "`SpecialLinear()`": (SpecialLinear, (8, 8)),
    "`PositiveDeterminant()`": (PositiveDeterminant, (8, 8)),
    "`FixedRank(4)`": (lambda: FixedRank(4), (16, 16)),
    "`Sphere()`": (Sphere, (16, 16)),
    '`TorchOrthogonal("cayley")`': (lambda: TorchOrthogonal("cayley"), (16, 16)),
    '`TorchOrthogonal("householder")`': (lambda: TorchOrthogonal("householder"), (16, 16)),
}


def layer_with(make: Callable[[], Parametrization], shape: tuple[int, int]) -> Any:
    torch.manual_seed(0)
    return register_parametrization(nn.Linear(shape[1], shape[0], bias=False), "weight", make())


def accuracy(make: Callable[[], Parametrization], shape: tuple[int, int], steps: int) -> float:
    """The deviation after training on a target that moves, over the tolerance for rounding.

    The target is near the value, and near the start where a set has no bound: training would lead
    ever further away.
    """
    layer = layer_with(make, shape)
    is_unbounded = isinstance(layer.parametrizations.weight[0], Symplectic)
    rate = 1e-3 if is_unbounded else 0.01
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9)
    start = target = layer.weight.detach()
    for step in range(steps):
        if step % 100 == 0:
            near = start if is_unbounded else layer.weight.detach()
            target = near + torch.randn(shape) / 4
        loss = (layer.weight - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    value = layer.weight.detach()
    parametrization: Parametrization = layer.parametrizations.weight[0]
    return parametrization.deviation(value).item() / parametrization.tolerance(value)


def drift(make: Callable[[], Parametrization], shape: tuple[int, int], steps: int) -> float:
    """How far the value is from where it was, relative to its norm, after steps of length zero."""
    layer = layer_with(make, shape)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    before = layer.weight.detach()
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    for _ in range(steps):
        optimizer.step()
    change: float = ((layer.weight - before).norm() / before.norm()).item()
    return change


def memory() -> float:
    """The peak memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write() -> None:
    torch.set_num_threads(1)
    eps = torch.finfo(torch.float32).eps
    lines = [
        "| parametrization, weight | deviation, in tolerances | drift of the value, in eps "
        "| more memory |",
        "|---|---|---|---|",
    ]
    for name, (make, shape) in MAPS.items():
        accuracy(make, shape, 1000)
        before = memory()
        deviation = accuracy(make, shape, STEPS)
        grown = memory() - before
        moved = drift(make, shape, STEPS) / eps
        size = f"{shape[0]} x {shape[1]}"
        lines.append(f"| {name}, {size} | {deviation:.2g} | {moved:.2g} | {grown:.1f} MiB |")
        print(lines[-1], flush=True)
    head, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    PAGE.write_text(head + MARK + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
