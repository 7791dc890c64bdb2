"""The picture of results: the one door to matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from paramdesc.commands.demo.afterwards import USES
from paramdesc.commands.demo.report import relative_time
from paramdesc.commands.demo.training import Run

__all__ = ["save_picture"]


class Look(NamedTuple):
    """How one variant is drawn. Widths shrink: where lines lie on each other, all are seen."""

    color: str
    width: float
    line: str = "-"


# after M. Okabe and K. Ito, distinguishable for colour-blind readers
LOOKS = (
    Look("#8C8C8C", 1.6),
    Look("#4D4D4D", 1.6, ":"),
    Look("#E69F00", 3.2),
    Look("#0072B2", 1.6),
)


def save_picture(runs: Sequence[Run], path: Path) -> None:
    """What the table says, over the whole training where it has a course."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(12, 7.5), dpi=150, layout=layout)
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"Handwritten digits read pixel by pixel, {len(runs[0].seconds)} training steps",
        fontsize=14,
        fontweight="bold",
    )
    rows = figure.add_gridspec(2, 1, height_ratios=(1.3, 1))
    top, bottom = figure.add_subfigure(rows[0]), figure.add_subfigure(rows[1])
    accuracy, kernel, norm = top.subplots(1, 3)
    draw_accuracies(accuracy, runs)
    draw_courses(kernel, [run.kernel_deviations for run in runs])
    label(kernel, "Kernel: distance from orthogonal", "‖QᵀQ - I‖, Frobenius")
    draw_courses(norm, [run.norm_deviations for run in runs])
    label(norm, "Readout: distance from norm one", "|spectral norm - 1|")
    handles, names = accuracy.get_legend_handles_labels()
    top.legend(
        handles, names, loc="outside lower center", ncols=len(runs), frameon=False, handlelength=3
    )
    times, uses = bottom.subplots(1, 2)
    draw_bars(times, runs, [relative_time(run, runs) for run in runs], "{:.2f}")
    label(times, "Time of a training step, by hand = 1")
    draw_uses(uses, runs)
    label(uses, "Afterwards")
    uses.grid(visible=False)
    figure.savefig(path)


def draw_accuracies(axes: Axes, runs: Sequence[Run]) -> None:
    for run, look in zip(runs, LOOKS, strict=True):
        axes.plot(
            run.tested_at,
            [100 * accuracy for accuracy in run.accuracies],
            look.line,
            color=look.color,
            linewidth=look.width,
            label=run.variant.name,
        )
    axes.set_ylim(0, 100)
    axes.set_xlabel("training steps")
    label(axes, "Accuracy on unseen digits", "per cent")


def draw_courses(axes: Axes, courses: Sequence[Sequence[float]]) -> None:
    for course, look in zip(courses, LOOKS, strict=True):
        axes.plot(course, look.line, color=look.color, linewidth=look.width)
    axes.set_yscale("log")
    axes.set_xlabel("training steps")


def draw_bars(axes: Axes, runs: Sequence[Run], values: Sequence[float], form: str) -> None:
    names = [run.variant.name for run in runs]
    bars = axes.barh(names, values, color=[look.color for look in LOOKS], height=0.7)
    axes.bar_label(bars, [form.format(value) for value in values], padding=4)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(values))
    axes.tick_params(axis="y", length=0)


def draw_uses(axes: Axes, runs: Sequence[Run]) -> None:
    """A table of what works with the trained models."""
    for column, run in enumerate(runs):
        for row, works in enumerate(run.uses):
            color = "#009E73" if works else "#BBBBBB"
            axes.text(column, row, "yes" if works else "no", ha="center", va="center", color=color)
    axes.set_xticks(range(len(runs)), [run.variant.name for run in runs])
    axes.set_yticks(range(len(USES)), list(USES))
    axes.set_xlim(-0.5, len(runs) - 0.5)
    axes.set_ylim(len(USES) - 0.5, -0.5)
    axes.tick_params(length=0)


def label(axes: Axes, title: str, unit: str = "") -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y" if unit else "x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
