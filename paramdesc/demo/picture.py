"""The picture of results: the one door to matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from paramdesc.demo.training import Run

__all__ = ["save_picture"]


class Look(NamedTuple):
    """How one variant is drawn: engines differ in hue, and cached ones are thin and dashed."""

    color: str
    line: str
    width: float


# after M. Okabe and K. Ito: told apart by colour-blind readers, and in grey
LOOKS = (
    Look("#4D4D4D", "-", 1.6),
    Look("#E69F00", "-", 4.0),
    Look("#A34700", "--", 1.6),
    Look("#7CC4EE", "-", 4.0),
    Look("#0060A0", "--", 1.6),
)


def save_picture(runs: Sequence[Run], path: Path) -> None:
    """What the table says, over the whole training where it has a course."""
    figure = Figure(figsize=(12, 7.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    steps = len(runs[0].seconds)
    figure.suptitle(
        f"Handwritten digits read pixel by pixel, {steps} training steps",
        fontsize=14,
        fontweight="bold",
    )
    grid = figure.add_gridspec(2, 6, height_ratios=(1.25, 1))
    top = [figure.add_subplot(grid[0, i : i + 2]) for i in (0, 2, 4)]
    bottom = [figure.add_subplot(grid[1, i : i + 3]) for i in (0, 3)]
    draw_accuracies(top[0], runs)
    draw_deviations(top[1], [run.kernel_deviations for run in runs])
    label(top[1], "Kernel: distance from orthogonal", "largest entry of |QᵀQ - I|")
    draw_deviations(top[2], [run.norm_deviations for run in runs])
    label(top[2], "Read-out: distance from norm one", "|spectral norm - 1|")
    draw_bars(
        bottom[0], runs, [run.time_per_step / runs[0].time_per_step for run in runs], "{:.2f}"
    )
    label(bottom[0], "Time of a training step, plain = 1")
    draw_bars(bottom[1], runs, [mean(run.evaluations) for run in runs], "{:g}")
    label(bottom[1], "Evaluations of the kernel's map, per step")
    handles, names = top[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=len(runs), frameon=False, handlelength=3
    )
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


def draw_deviations(axes: Axes, courses: Sequence[Sequence[float]]) -> None:
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


def label(axes: Axes, title: str, unit: str = "") -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y" if unit else "x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
