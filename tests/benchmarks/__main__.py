"""Runs all benchmarks, and writes docs/development/benchmarks.md and docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks import (
    batching,
    caching,
    compiling,
    converting,
    elements,
    entering,
    importing,
    launches,
    lipschitz,
    maps,
    orthogonal,
    readers,
    reading,
    registering,
    spectral,
    torch_maps,
    training,
)
from tests.benchmarks.stored import DETAILS, read
from tests.benchmarks.table import Table, main
from tests.benchmarks.timing import environment

INTRODUCTION = """\
# All benchmark tables

The tables behind [the benchmarks](../benchmarks.md), with what this project aims at: a goal says
how much a case may cost, and whether the last run kept to it. Written by
`python -m tests.benchmarks`; run it to see your own machine's figures. All cases of a table run
in turns, in one process where that is possible. Times are processor time, except for imports and
threads; ratios are medians of the rounds' ratios, and carry over to other machines better than
times do.
"""


BENCHMARKS = (
    reading,
    training,
    caching,
    batching,
    entering,
    compiling,
    converting,
    registering,
    importing,
    orthogonal,
    spectral,
    lipschitz,
    torch_maps,
    maps,
    elements,
)


def tables(quick: bool) -> Iterator[Table]:
    found = []
    for benchmark in BENCHMARKS:
        for table in benchmark.tables(quick):
            found.append(table)
            yield table
    if not quick:
        parts = [INTRODUCTION, f"{environment()}\n", *(table.markdown() for table in found)]
        counts = list(launches.tables(quick))
        yield from counts
        DETAILS.write_text("\n".join([*parts, launches.block(counts)]), encoding="utf-8")
        readers.write(read(DETAILS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main(tables, __doc__)
