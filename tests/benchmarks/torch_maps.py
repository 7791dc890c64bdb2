"""The drop-in functions beside torch's three: forward and backward through a read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations as theirs

from paramdesc import parametrizations as ours
from tests.benchmarks.table import Goal, Table, main
from tests.benchmarks.timing import Clock, clocked, in_turns

__all__ = ["tables"]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "orthogonal, matrix_exp": ("orthogonal", {"orthogonal_map": "matrix_exp"}),
    "orthogonal, cayley": ("orthogonal", {"orthogonal_map": "cayley"}),
    "orthogonal, householder": ("orthogonal", {"orthogonal_map": "householder"}),
    "spectral_norm": ("spectral_norm", {}),
    "weight_norm": ("weight_norm", {}),
    "weight_norm, dim=None": ("weight_norm", {"dim": None}),
}
SLOWEST = {"orthogonal, matrix_exp": 512, "orthogonal, householder": 512}
"""Torch takes seconds for larger ones."""


def layer(library: Any, function: str, options: dict[str, Any], size: int) -> nn.Module:
    """A layer whose original has moved from where registering puts it."""
    torch.manual_seed(0)
    linear = nn.Linear(size, size, bias=False)
    module: nn.Module = getattr(library, function)(linear, **options)
    if function == "orthogonal":
        with torch.no_grad():
            for original in module.parameters():
                original.add_(torch.randn(size, size).tril(-1) / size**0.5)
    return module


def training_read(module: Any, size: int, times: int) -> Clock:
    """A clock for reads of the weight, each with its gradient, after the original was changed."""
    factor = torch.randn(size, size)
    parameters = list(module.parameters())

    def reads() -> None:
        for _ in range(times):
            (module.weight * factor).sum().backward()
            with torch.no_grad():
                for parameter in parameters:
                    parameter.mul_(1.0)

    return clocked(reads)


def tables(quick: bool) -> Iterator[Table]:
    sizes = (16,) if quick else (64, 256, 512, 1024)
    rounds = 1 if quick else 9
    rows: dict[str, tuple[float | None, ...]] = {}
    goals = []
    for case, (function, options) in CASES.items():
        figures: list[float | None] = []
        for size in sizes:
            if size > SLOWEST.get(case, size):
                figures += [None, None]
                continue
            times = max(1, 256 // size) ** 2
            clocks = {
                name: training_read(layer(library, function, options, size), size, times)
                for name, library in (("torch", theirs), ("paramdesc", ours))
            }
            series = in_turns(clocks, rounds)
            figures += [
                series.median("paramdesc") / times * 1e3,
                series.ratio("paramdesc", "torch"),
            ]
            if size == min(512, sizes[-1]):
                what = f"the time of {case} in torch's, n = {size},"
                goals.append(Goal(what, 1, series.ratio("paramdesc", "torch")))
        rows[case] = tuple(figures)
    columns = tuple(f"n = {size}, {what}" for size in sizes for what in ("ms", "of torch's time"))
    yield Table(
        "Drop-in functions",
        "Milliseconds for a read of an `n x n` weight in float32, its gradient, and a write to "
        "the originals as a training step makes it; and the same divided by the time of torch's "
        "function of that name.",
        columns,
        rows,
        goals,
    )


if __name__ == "__main__":
    main(tables, __doc__)
