"""Caches in the loops of serving and training. Writes docs/cost.svg and its part of a page.

That page is docs/guide/cache_benchmarks.md, and the goals are in docs/development/caches.md. Every
weight is orthogonal by a matrix exponential, as `paramdesc.parametrizations.orthogonal` and torch's
function of that name make it by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.caches.accumulating import micro_batches, windows
from tests.benchmarks.caches.cost import forward_cost, training_cost
from tests.benchmarks.caches.memory import peaks
from tests.benchmarks.caches.models import DOCS
from tests.benchmarks.caches.picture import draw
from tests.benchmarks.caches.serving import serving
from tests.benchmarks.caches.threads import threads
from tests.benchmarks.table import Table, main
from tests.benchmarks.timing import environment

__all__ = ["tables", "write_between"]

PAGE = DOCS / "guide" / "cache_benchmarks.md"
GOALS = DOCS / "development" / "caches.md"
BEGIN, END = "<!-- written by python -m tests.benchmarks.caching -->\n", "<!-- up to here -->\n"


def tables(quick: bool) -> Iterator[Table]:
    found = []
    for table in measured(quick):
        found.append(table)
        yield table
    if not quick:
        *loops, forward, training = found
        write_between(loops, BEGIN, END)
        draw(forward, training)


def measured(quick: bool) -> Iterator[Table]:
    size = 16 if quick else 256
    yield serving(size, (1, 2) if quick else (1, 8, 32, 128), quick)
    yield micro_batches(size, 2 if quick else 16, quick)
    yield windows(*((8, 2, 2) if quick else (128, 8, 25)), quick)
    yield peaks(*((8, 3) if quick else (256, 200)))
    yield threads(size, (2,) if quick else (32, 128), quick)
    yield forward_cost(size, quick)
    yield training_cost(size, quick)


def write_between(tables: Sequence[Table], begin: str, end: str) -> None:
    """Write the tables into the page, and their goals into that for developers."""
    figures = [f"#{replace(table, goals=[]).markdown()}" for table in tables]
    put(PAGE, begin, end, [f"{environment()}\n", *figures])
    with_goals = [table for table in tables if table.goals]
    goals = ["\n\n".join([f"## {t.title}", *map(str, t.goals)]) + "\n" for t in with_goals]
    put(GOALS, begin, end, goals)


def put(path: Path, begin: str, end: str, parts: Sequence[str]) -> None:
    """Replace what stands between two marks of a page."""
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    assert end in rest, f"{path} lacks the marks"
    path.write_text("".join([before, begin, "\n", "\n".join(parts), "\n", end, after]), "utf-8")


if __name__ == "__main__":
    main(tables, __doc__)
