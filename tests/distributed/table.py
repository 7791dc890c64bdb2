"""The tables of the page about several processes: rows of outcomes, one for each engine.

A section of the page belongs to one folder of tests, which measures its rows, writes them by
`write(section, rows)` and checks that `read(section)` gives them.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.helpers import ROOT

__all__ = ["ENGINES", "PAGE", "Rows", "read", "write"]

PAGE = ROOT / "docs" / "guide" / "scale.md"
ENGINES = ("torch", "paramdesc")
HEADER = ("", "torch's engine", "paramdesc")

Rows = dict[str, dict[str, str]]
"""What comes out, by the title of the row and the engine: one of `ENGINES`."""


def marks(section: str) -> tuple[str, str]:
    """The lines around the table of a section."""
    return f"<!-- table {section}: written by its tests -->\n", f"<!-- end of {section} -->\n"


def write(section: str, rows: Rows, page: Path = PAGE) -> None:
    """Put the table in its place in the page."""
    begin, end = marks(section)
    text = page.read_text(encoding="utf-8")
    assert begin in text, f"{page} has no place for {section}"
    lines = [HEADER, ("---",) * len(HEADER)]
    lines += [(title, *(cells[engine] for engine in ENGINES)) for title, cells in rows.items()]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    before, rest = text.split(begin)
    page.write_text(before + begin + f"\n{table}\n\n" + end + rest.split(end)[1], "utf-8")


def read(section: str, page: Path = PAGE) -> Rows:
    """The rows that the page has."""
    begin, end = marks(section)
    block = page.read_text(encoding="utf-8").split(begin)[1].split(end)[0]
    table = [re.split(r" ?\| ?", line)[1:-1] for line in block.splitlines() if line[:1] == "|"]
    return {title.strip(): dict(zip(ENGINES, cells, strict=True)) for title, *cells in table[2:]}
