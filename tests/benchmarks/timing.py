"""Timing several ways of doing the same, in turns, so that a slow minute slows all of them.

What is timed is the processor's work: a long case would otherwise be interrupted by other
programs more often than a short one.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median
from timeit import Timer
from typing import Any

import torch
import wrapt

__all__ = ["Series", "clocked", "environment", "in_turns", "statement"]

Clock = Callable[[], float]
"""Does something once and returns how many seconds it took."""


@dataclass(frozen=True)
class Series:
    """The seconds of each case, round by round: the n-th of all cases ran side by side."""

    seconds: Mapping[str, list[float]]

    def median(self, case: str) -> float:
        """Seconds of `case`, the median of the rounds."""
        return median(self.seconds[case])

    def ratio(self, case: str, to: str) -> float:
        """How many times `to` the `case` takes: the median of the rounds' ratios."""
        return median(a / b for a, b in zip(self.seconds[case], self.seconds[to], strict=True))

    def fraction(self, case: str, of: str, over: str) -> float:
        """What `case` takes over `over`, as a fraction of what `of` takes over it."""
        rounds = zip(self.seconds[case], self.seconds[of], self.seconds[over], strict=True)
        return median((a - c) / (b - c) for a, b, c in rounds)


def in_turns(cases: Mapping[str, Clock], rounds: int) -> Series:
    """Run A B C A B C ..., after a round that is not counted unless it is the only one."""
    warm_up = rounds > 1
    runs = [{case: clock() for case, clock in cases.items()} for _ in range(rounds + warm_up)]
    return Series({case: [run[case] for run in runs[warm_up:]] for case in cases})


def statement(source: str, times: int, **names: Any) -> Clock:
    """A clock for `times` executions of `source`, in which `names` are known."""
    timer = Timer(source, timer=time.process_time, globals=names)
    return lambda: timer.timeit(times)


def clocked(function: Callable[[], object]) -> Clock:
    """A clock for one call of `function`."""

    def clock() -> float:
        start = time.process_time()
        function()
        return time.process_time() - start

    return clock


def environment() -> str:
    """What the figures depend on, in one sentence."""
    build = "C" if "_wrappers" in wrapt.BaseObjectProxy.__module__ else "pure Python"
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"wrapt {version('wrapt')} ({build} build), {platform.system()} on "
        f"{platform.machine()}, one thread."
    )
