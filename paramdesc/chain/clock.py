"""How long each map of a chain takes."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["Clock"]


class Clock:
    """Adds up the seconds that each map of one chain takes, by its place and class."""

    __slots__ = ("last", "seconds")

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.last = time.perf_counter()

    def start(self) -> None:
        """The next lap begins here."""
        self.last = time.perf_counter()

    def lap(self, place: int, parametrization: Any) -> None:
        """What has passed since the last lap was spent in this map."""
        now = time.perf_counter()
        name = f"{place} {type(parametrization).__name__}"
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now
