"""The folder that the results go to."""

from __future__ import annotations

import tempfile
from pathlib import Path

__all__ = ["MODEL", "PICTURE", "prepare_folder"]

PICTURE = "comparison.png"
MODEL = "model.pt"


def prepare_folder(folder: Path) -> None:
    """Make sure that the results can be written to `folder`, before any time is spent.

    Raises:
        OSError: if they cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
    for path in (folder / PICTURE, folder / MODEL):
        if path.exists():
            with path.open("r+b"):  # writes nothing yet
                pass
