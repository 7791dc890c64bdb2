"""Other tensors in the place of the originals: lent, converted, empty, on meta."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc
from paramdesc.parametrizations import SpectralNorm
from tests.helpers import (
    Shift,
    linear,
)
from tests.registration.copies.models import INPUTS, SAME_MAPS


@pytest.mark.parametrize("in_scope", [False, True])
def test_functional_call_lends_originals_under_their_names(in_scope: bool) -> None:
    layer = linear(Shift())
    lent = {name: torch.zeros_like(tensor) for name, tensor in layer.named_parameters()}
    with paramdesc.cached() if in_scope else torch.enable_grad():
        before = layer(INPUTS)
        assert not torch.func.functional_call(layer, lent, (INPUTS,)).any()
        assert layer(INPUTS).equal(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make_map", [*SAME_MAPS, SpectralNorm])
def test_conversion_reaches_the_value(make_map: type[nn.Module], dtype: torch.dtype) -> None:
    layer = linear(make_map())
    with paramdesc.cached():
        before = layer.weight
        layer.to(dtype)
        assert layer.weight.dtype == dtype
        rounding = 4 * torch.finfo(dtype).eps  # of values up to two, in two operations
        torch.testing.assert_close(
            layer.weight.to(before), before, rtol=0, atol=max(rounding, 1e-6)
        )


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make_map", [*SAME_MAPS, SpectralNorm])
def test_registration_keeps_the_dtype(make_map: type[nn.Module], dtype: torch.dtype) -> None:
    layer = nn.Linear(3, 3, dtype=dtype)
    paramdesc.register_parametrization(layer, "weight", make_map())
    assert layer.weight.dtype == dtype
    assert copy.deepcopy(layer).weight.equal(layer.weight)


@pytest.mark.parametrize("make_map", [*SAME_MAPS, SpectralNorm])
def test_layer_made_on_meta_is_filled_after_to_empty(make_map: type[nn.Module]) -> None:
    layer = nn.Linear(3, 3, device="meta")
    paramdesc.register_parametrization(layer, "weight", make_map())
    assert layer.weight.is_meta
    layer.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    layer.weight = torch.eye(3)
    torch.testing.assert_close(layer.weight, torch.eye(3))
    layer.to("meta")
    assert layer.weight.is_meta


@pytest.mark.parametrize("shape", [(0, 0), (2, 0, 0)])
@pytest.mark.parametrize("make_map", [*SAME_MAPS, SpectralNorm])
def test_empty_tensors_register_copy_and_assign(
    make_map: type[nn.Module], shape: tuple[int, ...]
) -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.empty(shape))
    paramdesc.register_parametrization(module, "weight", make_map())
    twin: Any = copy.deepcopy(module)
    twin.weight = torch.empty(shape)
    assert twin.weight.shape == shape
    paramdesc.remove_parametrizations(twin, "weight")
    assert isinstance(twin.weight, nn.Parameter)
