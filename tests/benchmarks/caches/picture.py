"""The costs as curves: docs/cost.svg."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.caches import ways
from tests.benchmarks.caches.models import DOCS
from tests.benchmarks.table import Table

PICTURE = DOCS / "cost.svg"

Lines = Mapping[str, tuple[str, str]]
"""The color and the dashes of each case."""

# in the middle between white and black, so that they are read on light and on dark pages
GRAY, RED, BLUE, GREEN, VIOLET, ORANGE, GRID = (
    "#767a80",
    "#d2483c",
    "#2f7fc4",
    "#2e8a57",
    "#9a62c6",
    "#b06f14",
    "#80808055",
)
LINES = {
    ways.PLAIN: (GRAY, ":"),
    ways.TORCH: (RED, "-"),
    ways.TORCH_CACHED: (RED, "--"),
    ways.UNCACHED: (BLUE, "-"),
    ways.CACHED: (ORANGE, "--"),
    ways.DEFERRED: (GREEN, "-"),
    ways.AGAIN: (VIOLET, "-"),
}
STYLE: Any = {
    "axes.edgecolor": GRAY,
    "axes.labelcolor": GRAY,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "paramdesc",
    "text.color": GRAY,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
}


def draw(*panels: Table) -> None:
    """The costs as curves, on one picture for light and dark pages."""
    draw_panels(PICTURE, panels, LINES, "number of calls in the loop", "milliseconds per call")


def draw_panels(
    picture: Path, panels: Sequence[Table], lines: Lines, x_label: str, y_label: str
) -> None:
    """A panel of curves for each table, on one picture for light and dark pages."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.7, 3.3 * len(panels)), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        grid = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for axes, table in zip(grid, panels, strict=True):
            axes.set_ylabel(y_label)
            draw_curves(axes, table, lines)
        axes.set_xlabel(x_label)
        figure.savefig(picture, metadata={"Date": None})


def draw_curves(axes: Any, table: Table, lines: Lines) -> None:
    """Each case as a line, with its name at the end, and no name on another."""
    counts = [int(column) for column in table.columns]
    axes.set(xscale="log", yscale="log")
    axes.set_title(table.title.partition(", ")[2], loc="left", fontsize=10)
    axes.set_xticks(counts, map(str, counts))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(color=GRID, linewidth=0.5)
    axes.patch.set_alpha(0)
    ends = {name: row[-1] or 0 for name, row in table.rows.items()}
    low, high = (
        math.log(f(x or 1 for row in table.rows.values() for x in row)) for f in (min, max)
    )
    gap, place = (high - low) / 14, -math.inf
    for name in sorted(ends, key=lambda name: ends[name]):
        color, dashes = lines[name]
        axes.plot(counts, table.rows[name], dashes, color=color, marker="o", markersize=3.5)
        place = max(place + gap, math.log(ends[name]))
        axes.annotate(
            name,
            (counts[-1], ends[name]),
            (counts[-1] * 1.35, math.exp(place)),
            color=color,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "relpos": (0, 0.5)},
        )
