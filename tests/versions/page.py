"""The page that lists which versions were tested, when, and with what result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

__all__ = ["Row", "write"]

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "versions.md"
STORE = Path(__file__).with_name("results.json")

TEXT = """\
# Tested versions

paramdesc supports Python 3.10 to 3.13, and torch 2.10 and newer. The tests below were run with
warnings as errors, on a CPU. `python -m tests.versions` adds a row; every change is tested in full
with the versions that `constraints.txt` names.

| Python | torch | date | passed | failed | skipped | tests |
|---|---|---|---|---|---|---|
"""


class Row(NamedTuple):
    """One run."""

    python: str
    torch: str
    date: str
    tests: str
    counts: dict[str, int]


def write(row: Row) -> None:
    """Add `row` to the page, in the place of an earlier run with the same versions."""
    rows = {key_of(old): old for old in read()}
    rows[key_of(row)] = row
    ordered = [rows[key] for key in sorted(rows)]
    STORE.write_text(json.dumps([one._asdict() for one in ordered], indent=1) + "\n", "utf-8")
    PAGE.write_text(TEXT + "".join(map(line_of, ordered)), "utf-8")


def read() -> list[Row]:
    return [Row(**old) for old in json.loads(STORE.read_text("utf-8"))] if STORE.exists() else []


def key_of(row: Row) -> tuple[tuple[int, ...], str, str]:
    return tuple(map(int, row.python.split("."))), row.torch, row.tests


def line_of(row: Row) -> str:
    failed = row.counts.get("failed", 0) + row.counts.get("error", 0)
    passed, skipped = row.counts.get("passed", 0), row.counts.get("skipped", 0)
    tests = row.tests.replace("tests/", "")
    return (
        f"| {row.python} | {row.torch} | {row.date} | {passed} | {failed} | {skipped} | {tests} |\n"
    )
