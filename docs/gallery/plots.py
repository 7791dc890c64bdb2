"""Plots of a weight before and after, each for one kind of constraint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch.nn.functional import conv2d, pad

from .colors import ACCENT, FAINT, GRAY, INK, WASH

Array = NDArray[Any]


class Plot(NamedTuple):
    """A plot of a weight before and after."""

    title: str
    draw: Callable[[Axes, Array, Array], None]


__all__ = [
    "ABSOLUTE_SUMS",
    "BY_DIAGONAL",
    "CHANGE",
    "CIRCULAR_OPERATOR",
    "DETERMINANT",
    "DIFFERENCE",
    "FROBENIUS_NORM",
    "MOMENTS",
    "NORMALITY",
    "OPERATOR",
    "ROWS",
    "ROW_CHANGES",
    "ROW_MEANS",
    "ROW_SUMS",
    "Array",
    "Plot",
    "eigenvalues",
    "mirrored",
    "row_norms",
    "singular_values",
    "singular_values_of_blocks",
]

BEFORE: dict[str, Any] = {"color": GRAY, "markerfacecolor": "none", "label": "before"}
AFTER: dict[str, Any] = {"color": ACCENT, "label": "after"}


def values_of(function: Callable[[Array], Array], title: str, *lines: float, xlabel: str) -> Plot:
    """A number for each row, column or index, before and after, and lines for what it must be."""

    def draw(axes: Axes, before: Array, after: Array) -> None:
        for line in lines:
            axes.axhline(line, color=FAINT, linewidth=1)
        for matrix, marker, look in ((before, "o", BEFORE), (after, "o", AFTER)):
            values = function(matrix)
            axes.plot(np.arange(1, len(values) + 1), values, marker, markersize=5, **look)
        axes.set_xlabel(xlabel)
        axes.locator_params(axis="x", integer=True)
        axes.margins(0.08)

    return Plot(title, draw)


def singular_values(*lines: float) -> Plot:
    return values_of(
        lambda Y: np.linalg.svd(Y, compute_uv=False), "singular values", 0, *lines, xlabel="index"
    )


def singular_values_of_blocks(count: int) -> Plot:
    """Those of each block, beside each other."""

    def function(Y: Array) -> Array:
        blocks = np.split(Y, count)
        return np.concatenate([np.linalg.svd(block, compute_uv=False) for block in blocks])

    plain = values_of(function, "singular values of the blocks", 0, 1, xlabel="index")

    def draw(axes: Axes, before: Array, after: Array) -> None:
        plain.draw(axes, before, after)
        size = before.shape[1]
        for i in range(1, count):
            axes.axvline(i * size + 0.5, color=FAINT, linewidth=1)

    return Plot(plain.title, draw)


def row_norms(*lines: float, axis: int = 1) -> Plot:
    what = "row" if axis == 1 else "column"
    return values_of(
        lambda Y: np.linalg.norm(Y, axis=axis), f"lengths of {what}s", 0, *lines, xlabel=what
    )


def operator_values(kernel: Array, mode: str = "constant") -> Array:
    """Singular values of the convolution that a flattened 8 x 2 x 3 x 3 kernel makes."""
    images = pad(torch.eye(2 * 6 * 6).reshape(-1, 2, 6, 6), (1, 1, 1, 1), mode)
    weight = torch.from_numpy(kernel).reshape(8, 2, 3, 3)
    return np.asarray(torch.linalg.svdvals(conv2d(images, weight).flatten(1)))


OPERATOR = values_of(operator_values, "singular values of the operator", 0, 1, xlabel="index")
CIRCULAR_OPERATOR = values_of(
    lambda Y: operator_values(Y, "circular"),
    "singular values of the operator",
    0,
    1,
    xlabel="index",
)
ABSOLUTE_SUMS = values_of(lambda Y: np.abs(Y).sum(1), "sums of absolute values", 0, 1, xlabel="row")
ROW_MEANS = values_of(lambda Y: Y.mean(1), "means of rows", 0, xlabel="row")
ROW_SUMS = values_of(lambda Y: Y.sum(1), "sums of rows", 0, 1, xlabel="row")


def eigenvalues(
    *, circle: float | None = None, left_of: float | None = None, mean: bool = False
) -> Plot:
    """Eigenvalues in the complex plane, with the region that they must be in."""

    def draw(axes: Axes, before: Array, after: Array) -> None:
        axes.axhline(0, color=FAINT, linewidth=1)
        axes.axvline(0, color=FAINT, linewidth=1)
        for matrix, look in ((before, BEFORE), (after, AFTER)):
            found = np.linalg.eigvals(matrix)
            axes.plot(found.real, found.imag, "o", markersize=5, **look)
            if mean:
                center = found.mean()
                axes.plot(center.real, center.imag, "+", markersize=13, color=look["color"])
        axes.margins(0.12)
        if circle is not None:
            angle = np.linspace(0, 2 * np.pi, 100)
            x, y = circle * np.cos(angle), circle * np.sin(angle)
            axes.plot(x, y, color=GRAY, linewidth=1)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel("real part" + (", + is the mean" if mean else ""))
        axes.set_ylabel("imaginary part", labelpad=2)
        if left_of is not None:
            axes.apply_aspect()
            limits = axes.get_xlim()
            axes.axvspan(limits[0], left_of, color=WASH, zorder=0)
            axes.set_xlim(limits)

    return Plot("eigenvalues", draw)


def pairs(function: Callable[[Array], tuple[Array, Array]], title: str, x: str, y: str) -> Plot:
    """Points, on the diagonal where two numbers are the same."""

    def draw(axes: Axes, before: Array, after: Array) -> None:
        for matrix, look in ((before, BEFORE), (after, AFTER)):
            axes.plot(*function(matrix), "o", markersize=4, **look)
        axes.axline((0, 0), slope=1, color=FAINT, linewidth=1, zorder=0)
        axes.margins(0.08)
        axes.set_xlabel(x)
        axes.set_ylabel(y, labelpad=2)

    return Plot(title, draw)


def mirrored(sign: float = 1, *, conjugate: bool = False) -> Plot:
    """Each entry above the diagonal and on it, beside the one opposite."""
    kind = "conjugate " if conjugate else ""
    minus = "-" if sign < 0 else ""

    def function(Y: Array) -> tuple[Array, Array]:
        i, j = np.triu_indices(len(Y))
        X, Z = Y[i, j], sign * (Y.conj() if conjugate else Y)[j, i]
        if np.iscomplexobj(Y):
            return np.concatenate([X.real, X.imag]), np.concatenate([Z.real, Z.imag])
        return X, Z

    return pairs(function, "opposite entries", "Y[i, j]", f"{minus}{kind}Y[j, i]")


def modulus_pairs(Y: Array) -> tuple[Array, Array]:
    return np.linalg.svd(Y, compute_uv=False), np.sort(np.abs(np.linalg.eigvals(Y)))[::-1]


NORMALITY = pairs(modulus_pairs, "moduli", "singular value", "|eigenvalue|")


def draw_by_diagonal(axes: Axes, before: Array, after: Array) -> None:
    for matrix, look in ((before, BEFORE), (after, AFTER)):
        i, j = np.indices(matrix.shape)
        axes.plot((j - i).ravel(), matrix.ravel(), "o", markersize=3.5, **look)
    axes.set_xlabel("diagonal j - i")
    axes.margins(0.05)


BY_DIAGONAL = Plot("entries", draw_by_diagonal)


def draw_change(axes: Axes, before: Array, after: Array) -> None:
    axes.axline((0, 0), slope=1, color=FAINT, linewidth=1, zorder=0)
    axes.plot(before.ravel(), after.ravel(), "o", markersize=4, color=ACCENT)
    axes.set_xlabel("entry before")
    axes.set_ylabel("entry after", labelpad=2)
    axes.margins(0.08)


CHANGE = Plot("entry by entry", draw_change)


def draw_difference(axes: Axes, before: Array, after: Array) -> None:
    values = np.linalg.svd(after - before, compute_uv=False)
    axes.plot(np.arange(1, len(values) + 1), values, "o", markersize=5, color=ACCENT)
    axes.axhline(0, color=FAINT, linewidth=1, zorder=0)
    axes.set_xlabel("index")
    axes.locator_params(axis="x", integer=True)


def draw_row_changes(axes: Axes, before: Array, after: Array) -> None:
    values = np.linalg.norm(after - before, axis=1)
    axes.axhline(0, color=FAINT, linewidth=1)
    axes.plot(np.arange(1, len(values) + 1), values, "o", markersize=5, color=ACCENT)
    axes.set_xlabel("row")
    axes.locator_params(axis="x", integer=True)


ROW_CHANGES = Plot("lengths of the changes of rows", draw_row_changes)
DIFFERENCE = Plot("singular values of the change", draw_difference)


def draw_rows(axes: Axes, before: Array, after: Array) -> None:
    columns = np.arange(1, before.shape[1] + 1)
    for matrix, look in ((before, BEFORE), (after, AFTER)):
        for i, row in enumerate(matrix[:3]):
            axes.plot(
                columns, row, color=look["color"], linewidth=1.4, label=None if i else look["label"]
            )
    axes.set_xlabel("column")


ROWS = Plot("the first three rows", draw_rows)


def draw_moments(axes: Axes, before: Array, after: Array) -> None:
    for matrix, look in ((before, BEFORE), (after, AFTER)):
        axes.plot(matrix.mean(1), matrix.var(1), "o", markersize=5, **look)
    axes.set_xlabel("mean of a row")
    axes.set_ylabel("variance", labelpad=2)
    axes.margins(0.15)


MOMENTS = Plot("rows", draw_moments)


def number(function: Callable[[Array], float], title: str, *lines: float) -> Plot:
    """One number before and after."""

    def draw(axes: Axes, before: Array, after: Array) -> None:
        values = [function(before), function(after)]
        bars = axes.barh(["before", "after"], values, color=[GRAY, ACCENT], height=0.5)
        axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=4)
        for line in (0, *lines):
            axes.axvline(line, color=INK if line else FAINT, linewidth=1)
        axes.invert_yaxis()
        axes.margins(x=0.6)
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(axis="y", length=0)

    return Plot(title, draw)


FROBENIUS_NORM = number(lambda Y: float(np.linalg.norm(Y)), "Frobenius norm", 2)
DETERMINANT = number(lambda Y: float(np.linalg.det(Y)), "determinant")
