"""Giving memory back to the system while a file is converted."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["return_freed_memory"]

M_MMAP_THRESHOLD = -3  # in malloc.h of glibc
LARGE = 2**20


def return_freed_memory() -> None:
    """Let the C library return large blocks when they are freed.

    By default, glibc starts to keep large blocks once one has been freed, and the holes between
    blocks grow to several times the memory in use. Other C libraries are not changed.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
