"""The conformance cases of all groups, by name. It needs nothing that a GPU machine lacks."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from tests.parametrizations import cases
from tests.parametrizations.cases.case import Case

__all__ = ["CASES"]


def find_cases() -> dict[str, Case]:
    """The cases of all groups, by name."""
    found: dict[str, Case] = {}
    for info in pkgutil.iter_modules(cases.__path__):
        module: Any = importlib.import_module(f"{cases.__name__}.{info.name}")
        found.update(getattr(module, "CASES", {}))
    return found


CASES = find_cases()
