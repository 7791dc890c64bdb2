"""Entering a scope: what a step pays for it, by the size of the model."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

from torch import nn
from torch.nn.utils import parametrize

import paramdesc
from tests.benchmarks.table import Goal, Table, main
from tests.benchmarks.timing import Clock, clocked, in_turns

__all__ = ["tables"]

TORCH = "`parametrize.cached()`, torch"
EVERYTHING = "`with cached():`"
MODEL, OBJECT, SET = "`with cached(model):`", "one object, again", "`with cached(found):`"


def tables(quick: bool) -> Iterator[Table]:
    yield entering(quick)


def model(size: int) -> nn.Module:
    """A model of at least `size` modules, a seventh of which are parametrized."""
    blocks: list[nn.Module] = []
    count = 1
    while count < size:
        block = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.LayerNorm(3))
        paramdesc.register_parametrization(block[0], "weight", nn.Identity())
        blocks.append(block)
        count += sum(1 for _ in block.modules())
    return nn.Sequential(*blocks)


def entered(make: Callable[[], object], times: int) -> Clock:
    """A clock for the entries of what `make` returns."""

    def enter() -> None:
        for _ in range(times):
            with make():  # type: ignore[attr-defined]
                pass

    return clocked(enter)


def entering(quick: bool) -> Table:
    """How long it takes to enter and leave an empty block."""
    rows: dict[str, tuple[float | None, ...]] = {}
    goals: list[Goal] = []
    for size in (20,) if quick else (133, 1100, 11000):
        root = model(size)
        found, again = paramdesc.get_parametrizations(root), paramdesc.cached(root)
        count = sum(1 for _ in root.modules())
        times = 2 if quick else max(5, 50000 // count)
        makes: dict[str, Callable[[], object]] = {
            TORCH: parametrize.cached,
            EVERYTHING: paramdesc.cached,
            OBJECT: lambda again=again: again,  # type: ignore[misc]
            SET: lambda found=found: paramdesc.cached(found),  # type: ignore[misc]
            MODEL: lambda root=root: paramdesc.cached(root),  # type: ignore[misc]
        }
        gc.collect()
        clocks = {name: entered(make, times) for name, make in makes.items()}
        series = in_turns(clocks, 1 if quick else 9)
        taken = {name: series.median(name) / times * 1e6 for name in clocks}
        per_module = max(taken[MODEL] - taken[EVERYTHING], 1e-3) / count * 1e3
        rows[f"{count} modules"] = (*taken.values(), per_module)
        goals += [
            Goal(f"{name}, microseconds for {count} modules,", 15, taken[name])
            for name in (OBJECT, SET)
        ]
        goals.append(Goal(f"{MODEL}, nanoseconds per module of {count},", 200, per_module))
    return Table(
        "Entering a scope",
        "Microseconds for entering and leaving an empty block. The last column is what "
        "`with cached(model):` takes beyond `with cached():`, in nanoseconds per module.",
        (TORCH, EVERYTHING, OBJECT, SET, MODEL, "per module, ns"),
        rows,
        goals,
        [
            "`found` is `get_parametrizations(model)`. An object that is entered again, and a set, "
            "search after a parametrization was made only. `cached(model)` in a loop compares the "
            "modules with those of its last walk."
        ],
    )


if __name__ == "__main__":
    main(tables, __doc__)
