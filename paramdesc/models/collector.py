"""Pausing the garbage collector while a whole model is changed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_collector"]


@contextmanager
def without_collector() -> Iterator[None]:
    """Disable automatic garbage collection inside the block.

    A large model creates many objects at once, none of them garbage. Visiting them all repeatedly
    would take a third of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
