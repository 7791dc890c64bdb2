"""Where Chromium is."""

from __future__ import annotations

import importlib.util
import shutil

__all__ = ["executable"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str | None:
    """The command, if there is one, and Playwright to drive it."""
    if importlib.util.find_spec("playwright") is None:
        return None
    return next(filter(None, map(shutil.which, NAMES)), None)
