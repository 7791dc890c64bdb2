"""Many similar weights: one by one and together. Writes docs/batching.svg and a page's part.

That page is docs/guide/cache_benchmarks.md. Times are of reading all weights and of their backward
pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations as theirs
from torch.nn.utils import parametrize

from paramdesc import cached, get_parametrizations, register_parametrization
from paramdesc.parametrizations import Orthogonal, SpectralNorm, Symmetric, WeightNorm
from tests.benchmarks.caches.models import DOCS
from tests.benchmarks.caches.picture import BLUE, GREEN, RED, draw_panels
from tests.benchmarks.caching import write_between
from tests.benchmarks.table import Goal, Table, main
from tests.benchmarks.timing import clocked, in_turns

__all__ = ["tables"]

BEGIN, END = "<!-- written by python -m tests.benchmarks.batching -->\n", "<!-- to here -->\n"
PICTURE = DOCS / "batching.svg"

TORCH, ALONE, TOGETHER = "torch, one by one", "paramdesc, one by one", "paramdesc, together"
STYLES = {TORCH: (RED, "--"), ALONE: (BLUE, "-"), TOGETHER: (GREEN, "-")}

MAPS: dict[str, Callable[[], nn.Module]] = {
    "Symmetric": Symmetric,
    "WeightNorm": WeightNorm,
    "SpectralNorm": SpectralNorm,
    "Orthogonal, cayley": lambda: Orthogonal("cayley"),
    "Orthogonal, householder": lambda: Orthogonal("householder"),
    "Orthogonal, matrix_exp": lambda: Orthogonal("matrix_exp"),
    "Orthogonal, polar": lambda: Orthogonal("polar"),
}
GOALS = {
    (16, "Symmetric"): 1 / 2,
    (16, "SpectralNorm"): 1 / 2,
    (16, "Orthogonal, cayley"): 1 / 3,
    (16, "Orthogonal, householder"): 1 / 3,
    **{(64, name): 0.7 for name in MAPS},  # inexpensive maps are evaluated one by one there
}


def tables(quick: bool) -> Iterator[Table]:
    panels = [
        by_number("Orthogonal, cayley", 16, orthogonal_of_torch, quick),
        by_number("SpectralNorm", 16, theirs.spectral_norm, quick),
    ]
    ratios = by_map(quick)
    yield from (*panels, ratios)
    if not quick:
        write_between([ratios], BEGIN, END)
        draw_panels(PICTURE, panels, STYLES, "number of layers", "milliseconds per step")


def orthogonal_of_torch(layer: nn.Module) -> nn.Module:
    return theirs.orthogonal(layer, orthogonal_map="cayley")


def layers(number: int, n: int, put_on: Callable[[nn.Module], object]) -> nn.ModuleList:
    torch.manual_seed(0)
    made = nn.ModuleList(nn.Linear(n, n, bias=False) for _ in range(number))
    for layer in made:
        put_on(layer)
    return made


def ours(name: str) -> Callable[[nn.Module], object]:
    return lambda layer: register_parametrization(layer, "weight", MAPS[name]())


def step(model: Any, scope: Callable[[], AbstractContextManager[object]]) -> Callable[[], None]:
    """A read of all weights after a training step, and its backward pass."""
    parameters = list(model.parameters())
    gradients = [torch.ones_like(layer.weight) for layer in model]

    def run() -> None:
        with torch.no_grad():
            torch._foreach_add_(parameters, 0.0)
            for parameter in parameters:
                parameter.grad = None
        with scope():
            torch.autograd.backward([layer.weight for layer in model], gradients)

    return run


def ways(model: nn.ModuleList) -> dict[str, Callable[[], None]]:
    chains = get_parametrizations(model)
    return {
        ALONE: step(model, lambda: cached(chains)),
        TOGETHER: step(model, lambda: cached(chains, batched=True)),
    }


def by_number(name: str, n: int, of_torch: Callable[[nn.Module], nn.Module], quick: bool) -> Table:
    """The cost of a step by the number of layers."""
    numbers = (1, 4) if quick else (1, 2, 4, 8, 16, 32, 64, 96)
    rows: dict[str, list[float]] = {way: [] for way in STYLES}
    for number in numbers:
        cases = {
            TORCH: step(layers(number, n, of_torch), parametrize.cached),
            **ways(layers(number, n, ours(name))),
        }
        series = in_turns({case: clocked(run) for case, run in cases.items()}, 1 if quick else 15)
        for case in cases:
            rows[case].append(1e3 * series.median(case))
    return Table(
        f"Cost of similar weights, {name}, {n} x {n}",
        f"Milliseconds to read so many weights of {n} x {n} and to run their backward pass.",
        tuple(map(str, numbers)),
        {case: tuple(row) for case, row in rows.items()},
    )


def by_map(quick: bool) -> Table:
    """What 48 weights cost together, as a fraction of one by one."""
    sizes = (4,) if quick else (16, 32, 64, 128)
    rows: dict[str, list[float]] = {name: [] for name in MAPS}
    for name, row in rows.items():
        for n in sizes:
            cases = {way: clocked(run) for way, run in ways(layers(48, n, ours(name))).items()}
            row.append(in_turns(cases, 1 if quick else 11).ratio(TOGETHER, ALONE))
    measured = {(n, name): row[i] for name, row in rows.items() for i, n in enumerate(sizes)}
    return Table(
        "Similar weights, together",
        "The time to read 48 weights in `cached(model, batched=True)` and to run their backward "
        "pass, as a fraction of the time in `cached(model)`, for square weights of several sizes. "
        "On a CPU, weights larger than 64 x 64, and weights larger than 32 x 32 with inexpensive "
        "parametrizations, are computed one by one in both.",
        tuple(f"{n} x {n}" for n in sizes),
        {name: tuple(row) for name, row in rows.items()},
        [
            Goal(f"48 weights of {n} x {n} under `{name}`, together to one by one,", most, found)
            for (n, name), most in GOALS.items()
            for found in [measured.get((n, name))]
            if found is not None
        ],
    )


if __name__ == "__main__":
    main(tables, __doc__)
