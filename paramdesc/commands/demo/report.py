"""The tables of results."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from paramdesc.commands.demo.afterwards import USES
from paramdesc.commands.demo.training import Run

__all__ = ["LEGEND", "USES_LEGEND", "make_table", "make_uses_table", "relative_time"]

LEGEND = """
accuracy    on test digits, after the last step
time        of a training step, median; "by hand" is 1
orthogonal  largest |Q'Q - I| of the recurrent kernel Q
norm        largest |s - 1| of the readout's spectral norm s"""

USES_LEGEND = """
pickle          torch.save of the whole model
cached serving  many requests share one evaluation of the
                weights, and new weights are used at once"""


def make_table(runs: Sequence[Run]) -> Table:
    """A row for each run. `LEGEND` explains the columns."""
    table = Table()
    table.add_column("variant")
    for column in ("accuracy", "time", "orthogonal", "norm"):
        table.add_column(column, justify="right")
    for run in runs:
        table.add_row(
            run.variant.name,
            f"{run.accuracies[-1]:.1%}",
            f"{relative_time(run, runs):.2f}",
            f"{max(run.kernel_deviations):.0e}",
            f"{max(run.norm_deviations):.0e}",
        )
    return table


def relative_time(run: Run, runs: Sequence[Run]) -> float:
    """The time of a step, relative to that of the weights written by hand."""
    (floor,) = (other for other in runs if other.variant.name == "by hand")
    return run.time_per_step / floor.time_per_step


def make_uses_table(runs: Sequence[Run]) -> Table:
    """A row for each use, a column for each run. `USES_LEGEND` explains the rows."""
    table = Table()
    table.add_column("afterwards")
    for run in runs:
        table.add_column(run.variant.name)
    for number, use in enumerate(USES):
        table.add_row(use, *("yes" if run.uses[number] else "no" for run in runs))
    return table
