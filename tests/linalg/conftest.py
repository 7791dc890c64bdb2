"""What tests of the algorithms for other devices than CPUs share."""

from __future__ import annotations

import pytest

from paramdesc.linalg import devices


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose the algorithms of other devices on a CPU, too."""
    monkeypatch.setattr(devices, "COUNTED_BY_SIZE", {"meta"})
