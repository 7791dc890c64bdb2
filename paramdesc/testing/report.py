"""The outcomes of the checks, as an object that prints as a table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["CheckError", "Failure", "NotApplicable", "Outcome", "Report"]

Status = Literal["passed", "failed", "left out"]


class Failure(Exception):  # noqa: N818  # it never leaves the checks
    """A check has failed. Its message says what was measured."""


class NotApplicable(Exception):  # noqa: N818
    """A check has nothing to check. Its message says why."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check."""

    check: str
    status: Status
    detail: str = ""
    """What was measured, why it failed, or why it was left out."""
    advice: str = ""
    """What to change in the map; empty unless the check failed."""


class Report:
    """The outcomes of all checks of one map, in order. It prints as a table."""

    def __init__(self, title: str, outcomes: list[Outcome]) -> None:
        self.title = title
        self.outcomes = outcomes

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.outcomes)

    def __getitem__(self, check: str) -> Outcome:
        for outcome in self.outcomes:
            if outcome.check == check:
                return outcome
        raise KeyError(check)

    @property
    def failed(self) -> list[Outcome]:
        """The checks that failed."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    def __str__(self) -> str:
        width = max(len(outcome.check) for outcome in self.outcomes)
        lines = [self.title] + [
            f"  {outcome.check:{width}}  {outcome.status:8}  {first_line(outcome)}"
            for outcome in self.outcomes
        ]
        for outcome in self.failed:
            lines += ["", f"{outcome.check}: {outcome.detail}"]
            lines += textwrap.wrap(f"To fix this: {outcome.advice}", 98, subsequent_indent="  ")
        return "\n".join(line.rstrip() for line in lines)

    def __repr__(self) -> str:
        return f"<Report on {self.title}: {len(self.failed)} of {len(self.outcomes)} failed>"


def first_line(outcome: Outcome) -> str:
    return textwrap.shorten(outcome.detail.partition("\n")[0], 90, placeholder=" ...")


class CheckError(AssertionError):
    """A parametrization failed some checks. `report` has all outcomes."""

    def __init__(self, report: Report) -> None:
        self.report = report
        super().__init__(str(report))
