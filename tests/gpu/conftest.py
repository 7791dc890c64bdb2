"""Marks the tests in this folder, and skips them where there is no device for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.gpu.device import DEVICE

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            # not errors, as elsewhere: torch warns of other things with each device and version
            item.add_marker(pytest.mark.filterwarnings("default"))
            if not DEVICE:
                reason = "no CUDA device; PARAMDESC_GPU_TESTS_ON=cpu runs what a CPU can"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def same_start() -> Iterator[None]:
    """Each test has the same random numbers, and waits for the device at its end."""
    torch.manual_seed(0)
    yield
    if DEVICE == "cuda":
        torch.cuda.synchronize()
