"""The device that the tests of streams and captures run on."""

from __future__ import annotations

import pytest

from tests.caching.streams.device import Device, make_device


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return make_device(monkeypatch)
