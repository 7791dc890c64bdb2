"""The figures that `python -m tests.benchmarks` has written, read back from its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DETAILS", "DOCS", "Stored", "read"]

DOCS = Path(__file__).parents[2] / "docs"
DETAILS = DOCS / "development" / "benchmarks.md"


@dataclass(frozen=True)
class Stored:
    """A table of the page: the names of its columns, and its rows of figures by name."""

    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float | None, ...]]

    def figure(self, row: str, column: str) -> float:
        """One figure. Raises `ValueError` if the cell is empty."""
        found = self.rows[row][self.columns.index(column)]
        if found is None:
            raise ValueError(f"there is no figure of {row!r} under {column!r}")
        return found


def read(text: str) -> dict[str, Stored]:
    """The tables of a page by their headings."""
    found = {}
    for part in text.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        lines = [line for line in body.splitlines() if line.startswith("|")]
        if lines:
            head, _rule, *rows = ([cell.strip() for cell in x[1:-1].split("|")] for x in lines)
            figures = {
                name: tuple(float(cell) if cell else None for cell in cells)
                for name, *cells in rows
            }
            found[title] = Stored(tuple(head[1:]), figures)
    return found
