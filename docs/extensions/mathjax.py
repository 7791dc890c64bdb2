"""Where MathJax is: in the site itself if the package with its files is installed."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

__all__ = ["mathjax"]

PACKAGE = "sphinx-mathjax-offline"
COMPONENT = "tex-svg.js"  # with its fonts, in one file
NETWORK = f"https://cdn.jsdelivr.net/npm/mathjax@3/es5/{COMPONENT}"


def mathjax() -> tuple[str, list[str]]:
    """The path or address of the script, and the file to copy into the site, if there is one."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return NETWORK, []
    for file in files:
        if file.name == COMPONENT:
            return COMPONENT, [str(Path(str(file.locate())))]
    return NETWORK, []
