"""The table as Markdown, and its place in the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.caching.noticed.case import NO, outcomes
from tests.caching.noticed.cases import GROUPS

__all__ = ["PAGE", "block", "replaced_in", "rows"]

PAGE = Path(__file__).parents[3] / "docs" / "guide" / "cache.md"
FIRST = "<!-- written by python -m tests.caching.noticed -->"
LAST = "<!-- up to here -->"
HEAD = "| what changes | in an open block | between blocks | contents not compared | what to do |"

Rows = Mapping[tuple[str, str], tuple[str, ...]]


def rows() -> Rows:
    """The outcomes by group and title; cases of one title must agree."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for group, cases in GROUPS.items():
        for case in cases:
            cells = outcomes(case)
            assert found.setdefault((group, case.title), cells) == cells, (case.title, cells)
    return found


def advice(in_a_block: str, lasting: str, without: str) -> str:
    """What to do where a change is not noticed."""
    if lasting == NO:
        return "call `invalidate(model)`"
    if without == NO:
        return "leave the block and compare contents, or call `invalidate(model)`"
    return "leave the block, or call `invalidate(model)`" if in_a_block == NO else ""


def block(found: Rows) -> str:
    """The lines between the markers."""
    lines = [HEAD, "|---|---|---|---|---|"]
    for group in dict.fromkeys(group for group, _ in found):
        lines.append(f"| **{group}** | | | | |")
        for (of, title), (in_a_block, lasting, without) in found.items():
            if of == group:
                short = "" if without == lasting else without
                then = advice(in_a_block, lasting, without)
                lines.append(f"| {title} | {in_a_block} | {lasting} | {short} | {then} |")
    return "\n".join(lines)


def replaced_in(text: str, inner: str) -> str:
    """The page with `inner` between the markers."""
    before, _, rest = text.partition(FIRST)
    _, _, after = rest.partition(LAST)
    assert rest, "the markers are missing"
    return f"{before}{FIRST}\n\n{inner}\n\n{LAST}{after}"
