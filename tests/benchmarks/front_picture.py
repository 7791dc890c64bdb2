"""The picture of the front page: `python -m tests.benchmarks.front_picture` writes docs/front.svg.

The left panel is trained here, in about ten seconds. The right panel has figures of the benchmarks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.parametrizations import Orthogonal
from tests.benchmarks.caches.picture import BLUE, GRAY, GRID, RED, STYLE
from tests.benchmarks.stored import DETAILS, DOCS, read

__all__ = ["draw", "trained"]

PICTURE = DOCS / "front.svg"
SIZE, LENGTH, BATCH, STEPS, EVERY = 64, 50, 32, 400, 5
STEP = "A training step of a recurrent network of size 64"
BARS = {
    "paramdesc, uncached": ("orthogonal,\nno cache", RED),
    "paramdesc, cached": ("orthogonal,\ncached", BLUE),
    "plain, not orthogonal": ("no constraint", GRAY),
}

Extremes = list[tuple[float, float]]
"""The smallest and the largest singular value, every few steps."""


class Adder(nn.Module):
    """Adds the two numbers of a sequence that are marked."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(2, SIZE)
        self.out = nn.Linear(SIZE, 1)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[1], SIZE)
        with P.cached(self.cell):
            for step in x:
                state = self.cell(step, state)
        y: Tensor = self.out(state)[:, 0]
        return y


def sequences() -> tuple[Tensor, Tensor]:
    """Random numbers, two of each sequence marked, and the sums of these two."""
    numbers, marks = torch.rand(LENGTH, BATCH), torch.zeros(LENGTH, BATCH)
    for column in range(BATCH):
        marks[torch.randperm(LENGTH)[:2], column] = 1
    return torch.stack([numbers, marks], -1), (numbers * marks).sum(0)


def trained(is_orthogonal: bool, steps: int = STEPS) -> Extremes:
    """Train the network from an orthogonal kernel, and watch the kernel's singular values."""
    torch.manual_seed(0)
    model = Adder()
    nn.init.orthogonal_(model.cell.weight_hh)
    if is_orthogonal:
        P.register_parametrization(model.cell, "weight_hh", Orthogonal())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    found = []
    for step in range(steps + 1):
        if step % EVERY == 0:
            values = torch.linalg.svdvals(model.cell.weight_hh.detach())
            found.append((float(values[-1]), float(values[0])))
        x, y = sequences()
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return found


def draw(plain: Extremes, orthogonal: Extremes) -> None:
    """Two panels, on one picture for light and dark pages."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.9, 2.9))
        FigureCanvasSVG(figure)
        figure.set_layout_engine("constrained", wspace=0.06)
        figure.patch.set_alpha(0)
        left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
        for axes in (left, right):
            axes.patch.set_alpha(0)
        draw_singular_values(left, plain, orthogonal)
        draw_times(right)
        figure.savefig(PICTURE, metadata={"Date": None})


def draw_singular_values(axes: Any, plain: Extremes, orthogonal: Extremes) -> None:
    steps = [EVERY * i for i in range(len(plain))]
    low, high = zip(*plain, strict=True)
    axes.fill_between(steps, low, high, color=RED, alpha=0.25, linewidth=0)
    axes.plot(steps, low, color=RED, linewidth=1)
    axes.plot(steps, high, color=RED, linewidth=1)
    for values in zip(*orthogonal, strict=True):
        axes.plot(steps, values, color=BLUE, linewidth=2)
    axes.set(xlim=(0, steps[-1]), ylim=(0, None), xlabel="training step", yticks=(0, 1, 2))
    axes.set_title("Singular values of a recurrent kernel", loc="left", fontsize=10)
    axes.grid(color=GRID, linewidth=0.5)
    end = steps[-1] * 0.98
    axes.text(end, high[-1] * 0.8, "no constraint", color=RED, ha="right", va="top")
    axes.text(end, 0.96, "Orthogonal()", color=BLUE, ha="right", va="top")


def draw_times(axes: Any) -> None:
    table = read(DETAILS.read_text(encoding="utf-8"))[STEP]
    times = [table.figure(name, "milliseconds") for name in BARS]
    labels, colors = zip(*BARS.values(), strict=True)
    bars = axes.barh(labels, times, color=colors, height=0.6)
    axes.bar_label(bars, [f"{time:.0f} ms" for time in times], padding=4, color=GRAY)
    axes.set_title("A training step, 100 reads, CPU", loc="left", fontsize=10)
    axes.set(xlim=(0, max(times) * 1.2))
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(left=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    draw(trained(is_orthogonal=False), trained(is_orthogonal=True))
