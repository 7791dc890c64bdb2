"""The cases that are known to be wrong as yet."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

__all__ = ["KNOWN_FAULT", "SOMETIMES", "marked"]

KNOWN_FAULT = pytest.mark.xfail(strict=True, reason="a known fault")
SOMETIMES = pytest.mark.xfail(strict=False, reason="a known fault of some kinds of scope")


def marked(names: Iterable[str], wrong: Collection[str]) -> list[Any]:
    """The cases, those that are wrong as yet marked."""
    return [pytest.param(name, marks=KNOWN_FAULT if name in wrong else ()) for name in names]
