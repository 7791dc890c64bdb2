"""The table in the guide."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.chain.step_table import loops, optimizers, sharded
from tests.chain.step_table.cases import Case
from tests.chain.step_table.quiet import QUIET, Quiet
from tests.chain.step_table.subjects import SUBJECTS
from tests.helpers import ROOT

__all__ = ["CASES", "PAGE", "ROWS", "in_new_process", "read", "row", "write"]

PAGE = ROOT / "docs" / "guide" / "steps.md"
BEGIN, END = "<!-- python -m tests.chain.step_table -->\n", "<!-- end -->\n"

CASES: list[Case] = [*optimizers.CASES, *loops.CASES, *sharded.CASES]
ROWS: dict[str, Case | Quiet] = {
    **{f"{case.group}: {case.title}": case for case in CASES},
    **{f"No step: {quiet.title}": quiet for quiet in QUIET},
}
HEADER = ["", *(subject.name for subject in SUBJECTS), "without samples"]


def row(title: str) -> list[str]:
    """The cells of a row, measured now."""
    case = ROWS[title]
    if isinstance(case, Case) and case.is_distributed:
        return in_new_process(title)
    return case.row()


def in_new_process(title: str) -> list[str]:
    """The same in a process that has done nothing before."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.chain.step_table", title]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    cells: list[str] = json.loads(process.stdout.splitlines()[-1])
    return cells


def write(rows: dict[str, list[str]], page: Path = PAGE) -> None:
    """Put the table in its place in the page."""
    lines = [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER)]
    lines += [f"| {title} | {' | '.join(cells)} |" for title, cells in rows.items()]
    before, _, after = page.read_text(encoding="utf-8").partition(BEGIN)
    after = after.partition(END)[2]
    page.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + after, "utf-8")


def read(page: Path = PAGE) -> dict[str, list[str]]:
    """The rows that the page has."""
    block = page.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    table = [re.split(r" ?\| ?", line)[1:-1] for line in block.splitlines() if line[:1] == "|"]
    return {title: cells for title, *cells in table[2:]}
