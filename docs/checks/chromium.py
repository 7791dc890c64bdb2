"""Where Chromium is."""

from __future__ import annotations

import shutil

__all__ = ["executable"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str | None:
    """The command, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)
