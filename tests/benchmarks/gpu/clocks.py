"""Timing on a device, within a limit of time.

The host gives work to a device and goes on, so the clock is stopped after waiting for the device.
All cases of a table run in turns, as in `tests.benchmarks.timing`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from tests.benchmarks.timing import Series

__all__ = ["Budget", "Run", "in_turns_on", "peak_memory"]

Run = Callable[[], object]
FEWEST, MOST = 3, 200
"""Rounds of a table."""
LEAST_SECONDS = 0.002
"""How long one measurement takes at least, by repeating a short case."""


class Budget:
    """The time that is left, shared by the tables that are still to come."""

    def __init__(self, seconds: float, tables: int) -> None:
        self.end = time.perf_counter() + seconds
        self.tables = tables

    def share(self) -> float:
        """The seconds for the next table. It is negative if no time is left."""
        left = self.end - time.perf_counter()
        share = left / max(self.tables, 1)
        self.tables -= 1
        return share


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measured(run: Run, times: int, device: str) -> float:
    """Seconds of one call, out of so many in a row."""
    wait(device)
    start = time.perf_counter()
    for _ in range(times):
        run()
    wait(device)
    return (time.perf_counter() - start) / times


def in_turns_on(device: str, cases: Mapping[str, Run], seconds: float, quick: bool) -> Series:
    """Run A B C A B C ... for about so many seconds, after two rounds that are not counted."""
    end = time.perf_counter() + seconds
    for run in cases.values():
        run()
    first = {case: measured(run, 1, device) for case, run in cases.items()}
    times = {case: max(1, min(100, int(LEAST_SECONDS / took))) for case, took in first.items()}
    found: dict[str, list[float]] = {case: [] for case in cases}
    for number in range(1 if quick else MOST):
        if number >= FEWEST and time.perf_counter() > end:
            break
        for case, run in cases.items():
            found[case].append(measured(run, times[case], device))
    return Series(found)


def peak_memory(run: Run) -> float:
    """MiB that one call takes at its peak, on a CUDA device."""
    for _ in range(2):
        run()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20
