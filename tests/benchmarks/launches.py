"""What maps cost on a GPU, counted without one: `python -m tests.benchmarks.launches`.

With `--write`, the tables in docs/development/benchmarks.md are replaced by the present ones.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.pretended import ALIKE, ALIKE_COUNTS, Count, counted
from tests.benchmarks.stored import DETAILS
from tests.benchmarks.table import Goal, Table, main

__all__ = ["block", "documented", "put", "tables"]

TITLE = "Launches on a GPU"
NORM_GOALS = {"SpectralNorm": 45, "spectral_norm": 22, "weight_norm": 17}
GOALS = {"cayley": 40, "householder": 60, "polar": 200}
BEGIN, END = "<!-- launches -->\n", "<!-- end of launches -->\n"


def tables(quick: bool) -> Iterator[Table]:
    counts = counted()
    goals = [
        Goal(f'launches of `Orthogonal("{name}")`, at any size,', most, largest(counts, name))
        for name, most in GOALS.items()
    ]
    waiting = [name for name, count in counts["cases"].items() if count.waits]
    yield Table(
        TITLE,
        "Operations that start a kernel, in one read of the weight and its backward pass after a "
        "training step. Small weights are bound by them: on an H100, each takes 8 to 10 "
        "microseconds of the host's time. They are counted on a pretended device, so "
        "that no GPU is needed; an operation of `torch.linalg` counts as one. The cases are those "
        "of the conformance tests.",
        ("forward", "backward", "both"),
        {name: row(count) for name, count in counts["cases"].items()},
        notes=[f"The host waits for the device in: {'; '.join(waiting) or 'none of them'}."],
    )
    yield Table(
        "Launches of an orthogonal weight",
        "The same for `Orthogonal` with each of its maps.",
        ("forward", "backward", "both"),
        {name: row(count) for name, count in counts["orthogonal"].items()},
        goals,
    )
    yield Table(
        "Launches of normalized weights",
        "The same for square weights of several sizes, whose originals have changed since the last "
        "read. torch makes one power iteration. `SpectralNorm` reaches a twentieth of its error "
        "under drift: to 32 by powers of the Gram matrix, to 1024 by a polynomial of it, and "
        "beyond by a polynomial of products with vectors. torch's weight norm is two kernels "
        "that divide by zero where a slice is zero; `weight_norm` takes four operations instead "
        "of the first.",
        ("forward", "backward", "both"),
        {name: row(count) for name, count in counts["norms"].items()},
        [
            Goal(f"launches of `{name}`, at any size,", most, most_of(counts["norms"], name))
            for name, most in NORM_GOALS.items()
        ],
    )

    yield Table(
        "Launches of weights that are alike",
        "The same for several weights of 64 x 64 under maps of one kind, in all: one by one, and "
        "together in `cached(model, batched=True)`. Copies of the values count as one launch each.",
        tuple(f"{number}, {way}" for number in ALIKE_COUNTS for way in WAYS),
        {name: alike(counts["batches"], name) for name in ALIKE},
    )


WAYS = ("one by one", "together")


def alike(counts: dict[str, Count], name: str) -> tuple[float, ...]:
    return tuple(
        counts[f"{name}, {number}, {way}"].launches for number in ALIKE_COUNTS for way in WAYS
    )


def most_of(counts: dict[str, Count], name: str) -> int:
    return max(count.launches for size, count in counts.items() if size.startswith(name))


def row(count: Count) -> tuple[float | None, ...]:
    figures = (count.forward, count.backward, count.launches)
    return tuple(figure or None for figure in figures)


def largest(counts: dict[str, dict[str, Count]], name: str) -> int:
    return max(
        count.launches for shape, count in counts["orthogonal"].items() if shape.startswith(name)
    )


def block(found: list[Table]) -> str:
    """The part of the page that holds these tables."""
    return "\n".join([BEGIN, *(table.markdown() for table in found), END])


def put(found: list[Table], page: Path) -> None:
    """Replace that part of the page, or append it."""
    text, new = page.read_text(encoding="utf-8"), block(found)
    pattern = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
    text = pattern.sub(lambda _: new, text) if BEGIN in text else f"{text}\n{new}"
    page.write_text(text, encoding="utf-8")


def documented(page: Path) -> dict[str, int]:
    """The launches of each case, forward and backward, as the page tells them."""
    part = page.read_text(encoding="utf-8").split(f"## {TITLE}\n")[1].split("\n## ")[0]
    rows = (line.split("|")[1:-1] for line in part.splitlines() if line.startswith("|"))
    return {
        cells[0].strip(): int(cells[-1].strip() or 0)
        for cells in list(rows)[2:]  # below the head and its rule
    }


if __name__ == "__main__":
    if "--write" in sys.argv:
        put(list(tables(False)), DETAILS)
    else:
        main(tables, __doc__)
