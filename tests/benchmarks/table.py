"""Tables of figures, printed and written as Markdown."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from tests.benchmarks.timing import environment

__all__ = ["Goal", "Table", "main"]


@dataclass(frozen=True)
class Goal:
    """A figure that is aimed at, and the one that was measured."""

    what: str
    at_most: float
    measured: float

    def __str__(self) -> str:
        verdict = "reached" if self.measured <= self.at_most else "**not reached**"
        measured = f"{show(self.measured)}, {verdict}"
        return f"Goal: {self.what} at most {self.at_most:g}. Measured: {measured}."


@dataclass(frozen=True)
class Table:
    """Rows of figures under a sentence that says what they are."""

    title: str
    text: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float | None, ...]]
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        cells = [
            ["", *self.columns],
            *([name, *map(show, figures)] for name, figures in self.rows.items()),
        ]
        widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(cells[0]))]
        lines = [
            "| " + " | ".join(align(i, cell, widths[i]) for i, cell in enumerate(row)) + " |"
            for row in cells
        ]
        rule = [
            "-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)
        ]
        lines.insert(1, "| " + " | ".join(rule) + " |")
        below = [str(goal) for goal in self.goals] + self.notes
        return "\n\n".join([f"## {self.title}", self.text, "\n".join(lines), *below]) + "\n"


def align(column: int, cell: str, width: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


def show(figure: float | None) -> str:
    """Three digits of it; empty where there is none."""
    if figure is None:
        return ""
    return f"{figure:.0f}" if abs(figure) >= 99.5 else f"{figure:.3g}"


def main(measure: Callable[[bool], Iterable[Table]], about: str | None) -> None:
    """Measure and print, as a command."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="a smoke run: the figures mean little")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(environment(), end="\n\n")
    for table in measure(arguments.quick):
        print(table.markdown(), flush=True)
