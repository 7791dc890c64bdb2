"""The page that lists which versions were tested, when, and with what result."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["PAGE", "Row", "page", "read", "write"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "versions.md"
STORE = Path(__file__).with_name("results.json")

TEXT = """\
# Tested versions

paramdesc needs Python 3.10 or newer and torch 2.10 or newer. Every change is tested in full with
the version of torch that `constraints.txt` names. Other pairs of versions are tested now and
then, as the table shows: on a CPU, with warnings as errors, on the built wheel. `python -m
tests.versions` runs the tests with a pair and adds a row.

## An environment that has torch

`pip install` of the wheel, or of the checkout, keeps the torch that is there if it is 2.10 or
newer. It adds `wrapt` if that is missing. The constraints file matters in an environment without
torch: it names a version, where pip would take the newest, with several gigabytes of libraries
for GPUs.

## What differs between versions

- torch calls TorchScript deprecated, by a `DeprecationWarning` or, since 2.14, by a
  `FutureWarning`. You see it where you call `torch.jit` yourself. paramdesc does not cause it.
  `check_parametrization`, which scripts and traces your map, ignores exactly this warning.
- With Python 3.13.0, `torch.compile` warns that its guards may run slower. It recommends Python
  3.13.1.
- torch 2.11 cannot compile, with `fullgraph=True`, a function that adds a map to a chain.

## Runs

| Python | torch | Date | Passed | Failed | Skipped |
|---|---|---|---|---|---|
"""


class Row(NamedTuple):
    """One run."""

    python: str
    torch: str
    date: str
    tests: str
    note: str
    counts: dict[str, int]
    failures: list[str]


def write(row: Row) -> None:
    """Add `row` to the page, in the place of an earlier run of these tests with these versions."""
    rows = {key_of(old): old for old in read()}
    rows[key_of(row)] = row
    ordered = [rows[key] for key in sorted(rows)]
    STORE.write_text(json.dumps([one._asdict() for one in ordered], indent=1) + "\n", "utf-8")
    PAGE.write_text(page(ordered), "utf-8")


def read() -> list[Row]:
    return [Row(**old) for old in json.loads(STORE.read_text("utf-8"))] if STORE.exists() else []


def page(rows: list[Row]) -> str:
    """The text of the page: a table, and below it which tests these were and which failed."""
    details = "".join(map(details_of, rows))
    return f"{TEXT}{''.join(map(line_of, rows))}\nThe tests of each run:\n\n{details}"


def key_of(row: Row) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    return numbers(row.python), numbers(row.torch.partition("+")[0]), row.tests


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def line_of(row: Row) -> str:
    counts = row.counts
    failed = sum(counts.get(word, 0) for word in ("failed", "error", "errors"))
    cells = (row.python, row.torch, row.date, counts.get("passed", 0), failed)
    return f"| {' | '.join(map(str, cells))} | {counts.get('skipped', 0)} |\n"


def details_of(row: Row) -> str:
    note = f" {row.note}" * bool(row.note)
    failures = "".join(f"\n  - failed: `{name}`" for name in row.failures)
    return f"- Python {row.python} with torch {row.torch}: `{row.tests}`.{note}{failures}\n"
