"""The table of results."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from rich.table import Table

from paramdesc.commands.demo.training import Run

__all__ = ["LEGEND", "make_table"]

LEGEND = """
accuracy     on 360 digits that none was trained on
time         of a training step, median, relative to the plain RNN
kernel       Frobenius norm of Q'Q - I for the recurrent kernel Q, the largest of all steps
norm         largest |s - 1| of the read-out's spectral norm s, in any step
evaluations  of the kernel's map, per training step"""


def make_table(runs: Sequence[Run]) -> Table:
    """A row for each run; times are relative to the first. `LEGEND` says what the columns are."""
    table = Table()
    table.add_column("variant")
    for column in ("accuracy", "time", "kernel", "norm", "evaluations"):
        table.add_column(column, justify="right")
    for run in runs:
        table.add_row(
            run.variant.name,
            f"{run.accuracies[-1]:.1%}",
            f"{run.time_per_step / runs[0].time_per_step:.2f}",
            f"{max(run.kernel_deviations):.1e}",
            f"{max(run.norm_deviations):.3f}",
            f"{mean(run.evaluations):g}",
        )
    return table
