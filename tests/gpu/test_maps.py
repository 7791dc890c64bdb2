"""Every map gives on the device what it gives on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import paramdesc as P
from paramdesc.testing.subject import Holder, convert
from tests.gpu.cases import CASES, layer_of, on, step, value_and_gradients
from tests.gpu.device import DEVICE

TOLERANCE = 1e-6
"""Relative to the largest entry, in double precision: conditioning is up to the case."""


def assert_close(there: Tensor, here: Tensor) -> None:
    size = here.abs().max().item() if here.numel() else 0.0
    atol = TOLERANCE * max(size, 1e-30)
    torch.testing.assert_close(there.cpu(), here, rtol=TOLERANCE, atol=atol)


def assert_same(there: Any, here: Any) -> None:
    """Values and gradients are equal."""
    value, gradients = value_and_gradients(there)
    expected, expected_gradients = value_and_gradients(here)
    assert value.device.type == DEVICE
    assert_close(value, expected)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        assert (gradient is None) == (other is None)
        if gradient is not None and other is not None:
            assert_close(gradient, other)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str) -> None:
    here = layer_of(name)
    there = on(DEVICE, here)
    assert_same(there, here)
    for _ in range(2):  # maps with a warm start move their state
        for layer in (there, here):
            step(layer)
        assert_same(there, here)


@pytest.mark.parametrize("name", CASES)
def test_kept_values(name: str) -> None:
    layer = on(DEVICE, layer_of(name))
    expected = layer.weight.detach()
    with P.cached(layer) as scope, torch.no_grad():
        assert layer.weight is layer.weight
        torch.testing.assert_close(layer.weight, expected)
    assert scope.misses == 1
    layer.eval()
    kept = P.cached(layer, persistent=True)
    for _ in range(2):
        with kept, torch.inference_mode():
            torch.testing.assert_close(layer.weight, expected)


@pytest.mark.parametrize("name", CASES)
def test_registering_and_assigning_on_the_device(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    weight, parametrization = case.weight().to(DEVICE), case.make()
    convert(parametrization, weight)
    unsafe = bool(case.declared.get("unsafe", False))
    layer: Any = P.register_parametrization(
        Holder(weight), "weight", parametrization, unsafe=unsafe
    )
    value = layer.weight.detach()
    assert value.device.type == DEVICE
    assert value.isfinite().all()
    tensors = [x for x in layer.state_dict().values() if isinstance(x, Tensor)]
    assert {x.device.type for x in tensors} == {DEVICE}
