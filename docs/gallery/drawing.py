"""The picture of one map: the weight before and after, and a plot of both."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from torch import Tensor

from .colors import SCALE, STEPS, STYLE
from .entry import Entry
from .plots import Array

__all__ = ["as_svg", "draw"]

WIDTH, HEIGHT = 7.7, 2.25  # inches
Box = tuple[float, float, float, float]
FIRST: Box = (0.0, 0.03, 0.27, 0.86)
SECOND: Box = (0.295, 0.03, 0.27, 0.86)
COLORS: Box = (0.58, 0.42, 0.011, 0.47)
THIRD: Box = (0.735, 0.2, 0.26, 0.69)
LEGEND = (0.602, 0.02)


def draw(entry: Entry) -> Figure:
    """The picture of one map."""
    before = as_matrix(entry.weight)
    after = as_matrix(entry.evaluate(entry.make(), entry.weight))
    limit = float(max(np.abs(parts(before)).max(), np.abs(parts(after)).max()))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT))
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        draw_weight(figure.add_axes(FIRST), before, "weight before", limit)
        draw_weight(figure.add_axes(SECOND), after, entry.after, limit)
        draw_scale(figure.add_axes(COLORS), limit)
        axes = figure.add_axes(THIRD)
        axes.patch.set_alpha(0)
        axes.set_title(entry.plot.title, fontsize=9)
        entry.plot.draw(axes, before, after)
        if axes.get_legend_handles_labels()[0]:
            add_legend(figure, axes)
    return figure


def as_matrix(weight: Tensor) -> Array:
    return weight.flatten(1).numpy()


def parts(matrix: Array) -> Array:
    """Real numbers as they are; of complex ones, real and imaginary parts side by side."""
    if not np.iscomplexobj(matrix):
        return matrix
    gap = np.zeros((len(matrix), 1))
    return np.concatenate([matrix.real, gap, matrix.imag], axis=1)


def draw_weight(axes: Axes, matrix: Array, title: str, limit: float) -> None:
    shown = np.ma.array(parts(matrix))
    if np.iscomplexobj(matrix):
        shown[:, matrix.shape[1]] = np.ma.masked
        title += ": real | imaginary"
    axes.pcolormesh(shown, cmap=SCALE, vmin=-limit, vmax=limit)
    axes.set_title(title, fontsize=9)
    axes.invert_yaxis()
    axes.set_aspect("equal", anchor="N")
    axes.set_axis_off()


def draw_scale(axes: Axes, limit: float) -> None:
    edges = np.linspace(-limit, limit, STEPS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    axes.pcolormesh([0, 1], edges, middles[:, None], cmap=SCALE, edgecolor="face")
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.tick_params(axis="y", length=2, pad=2, labelsize=8)
    axes.set_yticks([-limit, 0, limit], [f"{-limit:.2g}", "0", f"{limit:.2g}"])
    axes.spines[:].set_visible(False)


def add_legend(figure: Figure, axes: Axes) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="lower center",
        bbox_to_anchor=LEGEND,
        frameon=False,
        fontsize=8,
        handletextpad=0.3,
        labelspacing=0.1,
        handlelength=0.8,
        borderpad=0,
    )


def as_svg(figure: Figure) -> str:
    stream = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
