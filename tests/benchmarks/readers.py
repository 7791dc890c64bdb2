"""The page for readers: `python -m tests.benchmarks.readers` writes docs/benchmarks.md.

Its pictures and its table show figures of docs/development/benchmarks.md, and measure nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.caches.picture import (
    BLUE,
    GRAY,
    GREEN,
    GRID,
    ORANGE,
    RED,
    STYLE,
    VIOLET,
    draw_panels,
)
from tests.benchmarks.stored import DETAILS, DOCS, Stored, read
from tests.benchmarks.table import Table, show

__all__ = ["PAGE", "page", "write"]

PAGE = DOCS / "benchmarks.md"
TEMPLATE = Path(__file__).with_name("readers.md")
READING, STEP = DOCS / "cost_reading.svg", DOCS / "cost_step.svg"
ORTHOGONAL = DOCS / "cost_orthogonal.svg"
SIZES = (64, 256, 512, 1024)

Tables = Mapping[str, Stored]
Bars = Mapping[str, tuple[str, str]]
"""Rows of a table, with the label and the color of their bars."""

BARS = {
    "a parameter": ("an nn.Parameter", GRAY),
    "torch.nn.utils.parametrize, cached": ("torch, cached", RED),
    "paramdesc, uncached": ("paramdesc, no cache", BLUE),
    "paramdesc, cached": ("paramdesc, cached", BLUE),
    "torch.nn.utils.parametrize, uncached": ("torch, no cache", RED),
}
STEPS = {
    "plain, not orthogonal": ("no constraint", GRAY),
    "by hand, evaluated once": ("by hand", GRAY),
    "torch.nn.utils.parametrize, cached": ("torch, cached", RED),
    "paramdesc, cached": ("paramdesc, cached", BLUE),
    "torch.nn.utils.parametrize, uncached": ("torch, no cache", RED),
    "paramdesc, uncached": ("paramdesc, no cache", BLUE),
}
LINES = {
    "paramdesc, cayley": (BLUE, "-"),
    "paramdesc, matrix_exp": (GREEN, "-"),
    "paramdesc, householder": (VIOLET, "-"),
    "torch, cayley": (BLUE, "--"),
    "torch, matrix_exp": (GREEN, "--"),
    "torch, householder": (VIOLET, "--"),
    "one product of two such matrices": (ORANGE, ":"),
}


def figure(tables: Tables, title: str, row: str, column: str) -> str:
    """One figure of the stored tables, as it is shown."""
    return show(tables[title].figure(row, column))


def bars(picture: Path, names: Bars, x_label: str, panels: Tables) -> None:
    """A panel of bars for each table, on one picture for light and dark pages."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(7.7, 0.8 + 0.32 * len(names)), layout="constrained")
        FigureCanvasSVG(drawn)
        drawn.patch.set_alpha(0)
        grid = drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, table) in zip(grid, panels.items(), strict=True):
            draw_bars(axes, names, table)
            axes.set_title(title, loc="left", fontsize=10)
            axes.set_xlabel(x_label)
        drawn.savefig(picture, metadata={"Date": None})


def draw_bars(axes: Any, names: Bars, table: Stored) -> None:
    from_below = list(names)[::-1]
    figures = [table.rows[name][0] or 0 for name in from_below]
    labels, colors = zip(*(names[name] for name in from_below), strict=True)
    drawn = axes.barh(labels, figures, color=colors, height=0.65)
    axes.bar_label(drawn, [show(x) for x in figures], padding=4, color=GRAY)
    axes.set_xlim(0, max(figures) * 1.15)
    axes.patch.set_alpha(0)
    axes.grid(axis="x", color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(left=False)


def draw(tables: Tables) -> None:
    """All three pictures."""
    reading = tables["Reading a parametrized tensor"]
    bars(READING, BARS, "times a read of an nn.Parameter", {"": reading})
    steps = {
        f"{size} x {size} kernel": tables[f"A training step of a recurrent network of size {size}"]
        for size in (64, 128)
    }
    bars(STEP, STEPS, "times the step by hand", steps)
    weights = [tables[f"An orthogonal weight of size {size}"] for size in SIZES]
    rows: dict[str, tuple[float | None, ...]] = {
        name: tuple(table.figure(name, "milliseconds") for table in weights) for name in LINES
    }
    curves = Table("Cost, read and backward pass", "", tuple(map(str, SIZES)), rows)
    draw_panels(ORTHOGONAL, [curves], LINES, "size of the weight", "milliseconds")


def page(tables: Tables) -> str:
    """The page: the template, with figures in the place of `<<title | row | column>>`."""
    text = TEMPLATE.read_text(encoding="utf-8")
    parts = text.split("<<")
    return parts[0] + "".join(filled(part, tables) for part in parts[1:])


def filled(part: str, tables: Tables) -> str:
    place, _, rest = part.partition(">>")
    title, row, column = (name.strip() for name in place.split("|"))
    return figure(tables, title, row, column) + rest


def write(tables: Tables) -> None:
    """The page and its pictures."""
    draw(tables)
    PAGE.write_text(page(tables), encoding="utf-8")


if __name__ == "__main__":
    write(read(DETAILS.read_text(encoding="utf-8")))
