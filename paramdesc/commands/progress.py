"""A progress bar on standard error, for work that takes more than two seconds."""

from __future__ import annotations

import sys
import time

__all__ = ["Progress"]

PATIENCE = 2.0
"""Seconds before anything is shown."""
INTERVAL = 0.1
WIDTH = 24


class Progress:
    """Shows how much of `total` is done: a bar in a terminal, a line for each tenth elsewhere."""

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self.total = max(1, total)
        self.quiet = quiet
        self.done = 0
        self.start = self.shown_at = time.monotonic()
        self.tenth = 0
        self.is_shown = False

    def advance(self, amount: int) -> None:
        self.done += amount
        now = time.monotonic()
        if self.quiet or now - self.start < PATIENCE:
            return
        if not sys.stderr.isatty():
            self.print_line()
        elif now - self.shown_at >= INTERVAL or self.done >= self.total:
            self.shown_at, self.is_shown = now, True
            print(f"\r{self.bar(now - self.start)}", end="", file=sys.stderr, flush=True)

    def bar(self, seconds: float) -> str:
        part = min(1.0, self.done / self.total)
        left = seconds * (1 - part) / max(part, 1e-9)
        filled = round(WIDTH * part)
        return f"[{'#' * filled}{'.' * (WIDTH - filled)}] {part:4.0%}, {left:3.0f} s left "

    def print_line(self) -> None:
        tenth = 10 * self.done // self.total
        if tenth > self.tenth:
            self.tenth = tenth
            print(f"{min(100, 10 * tenth)}% done", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line of the bar."""
        if self.is_shown:
            print(file=sys.stderr)
