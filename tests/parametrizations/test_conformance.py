"""Every map of the library, by `paramdesc.testing.check_parametrization`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest

from paramdesc import parametrizations
from tests.parametrizations import cases
from tests.parametrizations.cases.case import Case


def find_cases() -> dict[str, Case]:
    """The cases of all groups, by name."""
    found: dict[str, Case] = {}
    for info in pkgutil.iter_modules(cases.__path__):
        module: Any = importlib.import_module(f"{cases.__name__}.{info.name}")
        found.update(getattr(module, "CASES", {}))
    return found


CASES = find_cases()


@pytest.mark.parametrize("name", CASES)
def test_map_conforms(name: str) -> None:
    CASES[name].run()


def test_every_map_of_the_library_has_a_case() -> None:
    made = (module for case in CASES.values() for module in case.make().modules())
    covered = {cls for module in made for cls in type(module).__mro__}
    public = [getattr(parametrizations, name) for name in parametrizations.__all__]
    maps = [x for x in public if isinstance(x, type)]
    assert not [x.__name__ for x in maps if x not in covered]
