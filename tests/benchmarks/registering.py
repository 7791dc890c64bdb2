"""Registering on many tensors, copying and finding them: time and memory."""

from __future__ import annotations

import copy
import gc
import importlib
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from torch import Tensor, nn

import paramdesc
from tests.benchmarks.table import Goal, Table, main
from tests.benchmarks.timing import Clock, clocked, in_turns

__all__ = ["tables"]

TORCH, OURS = "torch.nn.utils.parametrize", "paramdesc"
PROGRAM = "from tests.benchmarks.registering import resident; print(resident({engine!r}, {count}))"


class Identity(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X

    def right_inverse(self, X: Tensor) -> Tensor:
        return X


class Symmetric(Identity):
    def forward(self, X: Tensor) -> Tensor:
        return X.triu() + X.triu(1).mT


def tables(quick: bool) -> Iterator[Table]:
    yield registration(quick)
    yield whole_models(quick)
    yield scaling(quick)
    yield baking(quick)


def prepared(count: int, new_map: Callable[[], nn.Module]) -> list[tuple[nn.Module, nn.Module]]:
    """Pairs of a module and a map for it."""
    return [(nn.Linear(4, 4), new_map()) for _ in range(count)]


def register(engine: str, pairs: list[tuple[nn.Module, nn.Module]]) -> None:
    function = importlib.import_module(engine).register_parametrization
    for module, parametrization in pairs:
        function(module, "weight", parametrization)


def registration_clock(engine: str, count: int, new_map: Callable[[], nn.Module]) -> Clock:
    def clock() -> float:
        pairs = prepared(count, new_map)
        gc.collect()
        return clocked(lambda: register(engine, pairs))()

    return clock


def allocated(engine: str, count: int) -> float:
    """Bytes of Python objects per registration."""
    pairs = prepared(count, Identity)
    gc.collect()
    tracemalloc.start()
    try:
        register(engine, pairs)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()


def resident(engine: str, count: int) -> float:
    """Bytes that this process grows by per registration; to be asked in a fresh one."""
    register(engine, prepared(10, Identity))
    pairs = prepared(count, Identity)
    gc.collect()
    before = resident_pages()
    register(engine, pairs)
    gc.collect()
    return (resident_pages() - before) * 4096 / count


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


def resident_in_fresh_process(engine: str, count: int) -> float:
    command = [sys.executable, "-c", PROGRAM.format(engine=engine, count=count)]
    root = Path(__file__).parents[2]
    run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
    return float(run.stdout)


def registration(quick: bool) -> Table:
    count, rounds = (20, 1) if quick else (1000, 9)
    engines = (TORCH, OURS)
    times = {
        new_map: in_turns(
            {engine: registration_clock(engine, count, new_map) for engine in engines}, rounds
        )
        for new_map in (Identity, Symmetric)
    }
    rows: dict[str, tuple[float | None, ...]] = {}
    for engine in engines:
        rows[engine] = (
            *(series.median(engine) / count * 1e6 for series in times.values()),
            allocated(engine, count),
        )
    columns: tuple[str, ...] = ("identity, µs", "symmetric, µs", "Python objects, bytes")
    if Path("/proc/self/statm").exists():
        columns += ("resident memory, bytes",)
        pages = 1000 if quick else 4000  # fewer do not fill a page that was not there before
        for engine in engines:
            rows[engine] += (resident_in_fresh_process(engine, pages),)
    return Table(
        "Registering",
        f"One registration on an `nn.Linear` of size 4, of {count} in a row: its time, the memory "
        "of the objects that it makes (`tracemalloc`), and how much the process grows.",
        columns,
        rows,
        [
            *(
                Goal(
                    f"the time of a registration ({new_map.__name__.lower()}) in torch's",
                    1,
                    series.ratio(OURS, TORCH),
                )
                for new_map, series in times.items()
            ),
            Goal(
                "the memory of its objects in torch's",
                1,
                (rows[OURS][2] or 0) / (rows[TORCH][2] or 1),
            ),
        ],
    )


ONE_CALL = "paramdesc.parametrize"


def whole_model_clock(way: str, count: int) -> Clock:
    def clock() -> float:
        model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(count)))
        gc.collect()
        if way == ONE_CALL:
            return clocked(partial(paramdesc.parametrize, model, {nn.Linear: Identity}))()
        function = importlib.import_module(way).register_parametrization

        def register_each() -> None:
            for module in model:
                function(module, "weight", Identity())

        return clocked(register_each)()

    return clock


def whole_models(quick: bool) -> Table:
    ways = (TORCH, OURS, ONE_CALL)
    counts = (10, 20) if quick else (100, 1000, 10000)
    rows: dict[str, tuple[float | None, ...]] = dict.fromkeys(ways, ())
    for count in counts:
        clocks = {way: whole_model_clock(way, count) for way in ways}
        series = in_turns(clocks, 1 if quick else 5)
        for way in ways:
            rows[way] += (series.median(way) / count * 1e6,)
    ratio = series.ratio(ONE_CALL, TORCH)
    return Table(
        "Whole models",
        "Microseconds per module, to register an identity on each `nn.Linear` of a model of so "
        "many: one by one, or by one call of `parametrize`, which also finds the tensors, makes "
        "the maps and can undo everything.",
        tuple(f"{count} modules" for count in counts),
        rows,
        [Goal("the time of one call, for the largest model, in torch's one by one", 1, ratio)],
    )


def model(engine: str, count: int) -> nn.Module:
    pairs = prepared(count, Identity)
    register(engine, pairs)
    return nn.Sequential(*(module for module, _ in pairs))


def scaling(quick: bool) -> Table:
    rows: dict[str, tuple[float | None, ...]] = {}
    goals: list[Goal] = []
    for count in (10, 20) if quick else (100, 1000, 10000):
        ours, theirs = model(OURS, count), model(TORCH, count)
        clocks = {
            "torch's deepcopy": clocked(partial(copy.deepcopy, theirs)),
            "deepcopy": clocked(partial(copy.deepcopy, ours)),
            "get": clocked(partial(paramdesc.get_parametrizations, ours)),
        }
        series = in_turns(clocks, 1 if quick else 3 if count > 1000 else 7)
        rows[f"{count} modules"] = tuple(series.median(name) / count * 1e6 for name in clocks)
        what = f"the time of `deepcopy` of {count} parametrized modules in torch's"
        goals.append(Goal(what, 1, series.ratio("deepcopy", "torch's deepcopy")))
    return Table(
        "Large models",
        "Microseconds per module, for models of parametrized layers: what is linear stays the same "
        "from row to row. Copies of many objects also pay for runs of the garbage collector.",
        ("`deepcopy`, torch", "`deepcopy`, paramdesc", "`get_parametrizations`"),
        rows,
        goals,
    )


def baking_clock(engine: str, count: int) -> Clock:
    def clock() -> float:
        made = model(engine, count)
        gc.collect()
        return clocked(lambda: paramdesc.bake(made))()

    return clock


def baking(quick: bool) -> Table:
    rows: dict[str, tuple[float | None, ...]] = {}
    ratio = 0.0
    for count in (10, 20) if quick else (100, 1000, 10000):
        clocks = {
            "torch's registering": registration_clock(TORCH, count, Identity),
            "ours": baking_clock(OURS, count),
            "theirs": baking_clock(TORCH, count),
        }
        series = in_turns(clocks, 1 if quick else 3 if count > 1000 else 7)
        rows[f"{count} modules"] = tuple(series.median(name) / count * 1e6 for name in clocks)
        ratio = series.ratio("ours", "torch's registering")
    return Table(
        "Baking",
        "Microseconds per module for `bake`, on models that paramdesc and torch's engine have "
        "parametrized, next to the registrations of torch's engine, one by one.",
        ("registering, torch", "`bake`, paramdesc's", "`bake`, torch's"),
        rows,
        [Goal("the time of `bake` for the last row in that of torch's registrations", 1, ratio)],
    )


if __name__ == "__main__":
    main(tables, __doc__)
