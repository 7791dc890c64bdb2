"""Locks that survive a fork: a lock held by another thread is never released in the child."""

from __future__ import annotations

import os
import threading
from typing import Any

__all__ = ["ProcessLock", "in_child"]


class ProcessLock:
    """A reentrant lock for the threads of one process. A forked child gets a new one.

    Use it as `with lock():`. A thread that forks inside the block then releases the lock that it
    acquired, in the child too.
    """

    __slots__ = ("generation", "lock")

    def __init__(self) -> None:
        self.lock: Any = threading.RLock()
        self.generation = _generation

    def __call__(self) -> Any:
        """The lock of this process."""
        if self.generation != _generation:
            with _renewing:
                if self.generation != _generation:
                    self.lock = threading.RLock()
                    self.generation = _generation  # last, because other threads check it first
        return self.lock


_generation = 0  # the number of forks between the first process and this one
_renewing = threading.Lock()


def renew() -> None:
    """Replace the locks of the parent."""
    global _generation, _renewing
    _generation += 1
    _renewing = threading.Lock()


def in_child(function: Any) -> None:
    """Call `function` in each forked child, before anything else runs there."""
    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        os.register_at_fork(after_in_child=function)


in_child(renew)
