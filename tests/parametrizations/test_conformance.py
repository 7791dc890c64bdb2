"""Every map of the library, by `paramdesc.testing.check_parametrization`."""

from __future__ import annotations

import pytest

from paramdesc import parametrizations
from tests.parametrizations.all_cases import CASES


@pytest.mark.parametrize("name", CASES)
def test_map_conforms(name: str) -> None:
    CASES[name].run()


def test_every_map_of_the_library_has_a_case() -> None:
    made = (module for case in CASES.values() for module in case.make().modules())
    covered = {cls for module in made for cls in type(module).__mro__}
    public = [getattr(parametrizations, name) for name in parametrizations.__all__]
    maps = [x for x in public if isinstance(x, type)]
    assert not [x.__name__ for x in maps if x not in covered]
