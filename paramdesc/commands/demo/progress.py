"""Showing how far the training is: a live bar in a terminal, a few lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from paramdesc.commands.demo.training import Run

__all__ = ["follow"]

N_LINES = 10


def follow(training: Iterable[int], runs: Sequence[Run], steps: int, console: Console) -> None:
    """Go through `training`, which yields the number of steps made, and show it."""
    if console.is_interactive:
        show_bar(training, runs, steps, console)
    else:
        print_lines(training, runs, steps, console)


def show_bar(training: Iterable[int], runs: Sequence[Run], steps: int, console: Console) -> None:
    columns = (
        TextColumn("training"),
        # a full line would let the terminal's ^C fall onto the next one
        BarColumn(bar_width=max(4, min(40, console.width - 56))),
        MofNCompleteColumn(),
        TextColumn("steps, left"),
        TimeRemainingColumn(),
        TextColumn("accuracy {task.fields[accuracy]:.1%}"),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("training", total=steps, accuracy=0.0)
        for step in training:
            progress.update(bar, completed=step, accuracy=runs[-1].accuracies[-1])


def print_lines(training: Iterable[int], runs: Sequence[Run], steps: int, console: Console) -> None:
    start = time.monotonic()
    for step in training:
        if step and (step % max(1, steps // N_LINES) == 0 or step == steps):
            console.print(
                f"step {step:{len(str(steps))}} of {steps}, {time.monotonic() - start:3.0f} s, "
                f"accuracy {runs[-1].accuracies[-1]:.1%} ({runs[-1].variant.name})",
                highlight=False,
            )
