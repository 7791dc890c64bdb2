"""Measures how long each map of a chain takes."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["Clock"]


class Clock:
    """Sums the seconds that each map of a chain takes, by index and class."""

    __slots__ = ("last", "seconds")

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.last = time.perf_counter()

    def start(self) -> None:
        """Begin the next lap."""
        self.last = time.perf_counter()

    def lap(self, place: int, parametrization: Any) -> None:
        """Add the time since the last lap to `parametrization`."""
        now = time.perf_counter()
        name = f"{place} {type(parametrization).__name__}"
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now
