"""The counted launches on a GPU, read from the page that has the table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["Launches", "read_launches"]

DOCS = Path(__file__).parents[1]
HEADING = "\n## Launches on a GPU\n"
ROW = re.compile(r"^\| (\S.*?) +\| +(\d+) \| +(\d+) \| +(\d+) \|$", re.MULTILINE)


class Launches(NamedTuple):
    """Operations that start a kernel, in a read of the weight and in its backward pass."""

    forward: int
    backward: int
    both: int


def read_launches() -> tuple[str, dict[str, Launches]]:
    """The page that has the table, as Sphinx names it, and the numbers for each case."""
    for path in sorted(DOCS.rglob("benchmarks.md")):
        _, found, rest = path.read_text(encoding="utf-8").partition(HEADING)
        if found:
            table = rest.partition("\n## ")[0]
            page = path.relative_to(DOCS).with_suffix("").as_posix()
            return page, {
                row[1]: Launches(*map(int, row.groups()[1:])) for row in ROW.finditer(table)
            }
    raise LookupError(f"no page benchmarks.md below {DOCS} has the heading{HEADING}")
