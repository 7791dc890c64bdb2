"""In a steady state of training, no map makes the host wait for the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import paramdesc as P
from tests.gpu.cases import CASES, layer_of, may_wait, on
from tests.gpu.device import DEVICE


@contextmanager
def no_waits() -> Iterator[None]:
    """Raise at each wait for the device inside."""
    if DEVICE != "cuda":
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kept", [False, True], ids=["uncached", "cached"])
@pytest.mark.parametrize("name", CASES)
def test_training_does_not_wait(name: str, kept: bool, request: pytest.FixtureRequest) -> None:
    if may_wait(name) and DEVICE == "cuda":
        reason = "torch's matrix_exp and eigh wait for the device"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=False))
    layer = on(DEVICE, layer_of(name, wide=False))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)

    with P.cached(layer) if kept else P.cached(set()):
        for _ in range(3):
            train(layer, optimizer)
        with no_waits():
            train(layer, optimizer)


def train(layer: Any, optimizer: torch.optim.Optimizer) -> None:
    """Two reads of the weight, and a step on a loss that takes nothing from the host."""
    loss = (layer.weight.abs() + layer.weight.abs()).square().sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("name", CASES)
def test_serving_a_kept_value_does_not_wait(name: str) -> None:
    layer = on(DEVICE, layer_of(name, wide=False)).eval()
    with torch.no_grad(), P.cached(layer, persistent=True):
        value = layer.weight
        with no_waits():
            assert layer.weight is value
