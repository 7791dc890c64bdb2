"""What tests in all rooms use, and the profiles of the property tests.

`HYPOTHESIS_PROFILE=slow` runs ten times as many examples.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import suppress

import pytest

from paramdesc.linalg import devices

with suppress(ModuleNotFoundError):  # the tests on a GPU run without it
    from hypothesis import settings

    settings.register_profile("normal", max_examples=2_000, deadline=None)
    settings.register_profile("slow", max_examples=20_000, deadline=None)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "normal"))


def pytest_collection_finish() -> None:
    """Keep the garbage collector from going through all that was imported, at each pass."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def nothing_frozen() -> Iterator[None]:
    """The collector's lists are complete: some warnings are not given otherwise."""
    gc.unfreeze()
    try:
        yield
    finally:
        gc.freeze()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What a test sees freed is freed by its last reference."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.fixture
def few_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of the CPU are computed by the algorithms for a GPU."""
    monkeypatch.setattr(devices, "COUNTED_BY_SIZE", frozenset({"meta"}))


@pytest.fixture(params=["cpu", "gpu"])
def algorithms(request: pytest.FixtureRequest) -> None:
    """Tensors are computed by the algorithms for a CPU, and then by those for a GPU."""
    if request.param == "gpu":
        request.getfixturevalue("few_launches")
