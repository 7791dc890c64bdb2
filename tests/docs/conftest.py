"""The parts of the site, as modules."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`site("catalog")` imports what lies in docs."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module
