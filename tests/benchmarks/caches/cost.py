"""The cost of a call by the number of calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn.utils import parametrizations as theirs
from torch.nn.utils import parametrize

from paramdesc import cached
from paramdesc import parametrizations as ours
from tests.benchmarks.caches import ways
from tests.benchmarks.caches.accumulating import accumulation
from tests.benchmarks.caches.models import Scope, Step, layer
from tests.benchmarks.table import Table
from tests.benchmarks.timing import clocked, in_turns

ROUNDS = {1: 15, 4: 7, 16: 3, 64: 2, 256: 1}
"""How often the slow loops of the picture run, by the number of calls."""

Loops = Mapping[str, Callable[[int], Step]]
"""By case, the loop of so many calls."""


def forward_cost(size: int, quick: bool) -> Table:
    x = torch.randn(2 if quick else 32, size)
    mine, peer = layer(size, ours), layer(size, theirs)
    kept = cached(mine, persistent=True)

    def calls(model: nn.Module, count: int, scope: Scope = nullcontext) -> Step:
        model.eval()

        def run() -> None:
            with torch.inference_mode(), scope():
                for _ in range(count):
                    model(x)

        return run

    return cost(
        "Cost of a call by their number, forward",
        f"Milliseconds for each of so many calls of an `nn.Linear` of size {size} in one loop, "
        f"with a batch of {len(x)} in `torch.inference_mode()`.",
        {
            ways.TORCH: partial(calls, peer),
            ways.UNCACHED: partial(calls, mine),
        },
        {
            ways.TORCH_CACHED: partial(calls, peer, scope=parametrize.cached),
            ways.CACHED: partial(calls, mine, scope=partial(cached, mine)),
            ways.AGAIN: partial(calls, mine, scope=lambda: kept),
            ways.PLAIN: partial(calls, layer(size)),
        },
        quick,
    )


def training_cost(size: int, quick: bool) -> Table:
    x = torch.randn(2 if quick else 32, size)
    mine, peer = layer(size, ours), layer(size, theirs)

    def passes(model: nn.Module, count: int, scope: Scope = nullcontext) -> Step:
        return accumulation(model, [x] * count, scope)

    return cost(
        "Cost of a micro-batch by their number, forward and backward",
        f"Milliseconds for each of so many micro-batches of {len(x)}, through the same layer.",
        {
            ways.TORCH: partial(passes, peer),
            ways.UNCACHED: partial(passes, mine),
            ways.CACHED: partial(passes, mine, scope=partial(cached, mine)),
        },
        {
            ways.DEFERRED: partial(passes, mine, scope=partial(cached, mine, deferred=True)),
            ways.PLAIN: partial(passes, layer(size)),
        },
        quick,
    )


def cost(title: str, text: str, slow: Loops, fast: Loops, quick: bool) -> Table:
    """The time of one call in loops of growing length, in slow ones of fewer rounds."""
    found: dict[str, list[float]] = {name: [] for name in (*slow, *fast)}
    rounds_of = dict.fromkeys((1, 2), 1) if quick else ROUNDS
    for count, rounds in rounds_of.items():
        for loops, times in ((slow, rounds), (fast, 1 if quick else 15)):
            clocks = {name: clocked(loop(count)) for name, loop in loops.items()}
            series = in_turns(clocks, times)
            for name in loops:
                found[name].append(series.median(name) / count * 1e3)
    columns = tuple(map(str, rounds_of))
    return Table(title, text, columns, {name: tuple(row) for name, row in found.items()})
