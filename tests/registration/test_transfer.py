"""Transferring parametrizations, originals and maps, between modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from tests.helpers import Double
from tests.registration.maps import Product


def test_transfer_shares_maps_and_originals() -> None:
    source = P.register_parametrization(nn.Linear(3, 3), "weight", Product())
    P.register_parametrization(source, "bias", lambda X: X[:1], unsafe=True)
    target = P.transfer_parametrizations_and_params(source, nn.Linear(3, 3))
    torch.testing.assert_close(target.weight, source.weight)
    assert target.bias.shape == (1,)
    for name in ("original0", "original1"):
        path = f"parametrizations.weight.{name}"
        assert target.get_parameter(path) is source.get_parameter(path)
    plain = nn.Linear(3, 3)
    assert P.transfer_parametrizations_and_params(plain, target) is target


def test_transfer_reaches_parametrized_originals() -> None:
    source: Any = P.register_parametrization(nn.Linear(2, 2), "weight", Double())
    P.register_parametrization(source.parametrizations.weight, "original", torch.sinh)
    target = P.transfer_parametrizations_and_params(source, nn.Linear(2, 2))
    torch.testing.assert_close(target.weight, source.weight)
    path = "parametrizations.weight.parametrizations.original.original"
    assert target.get_parameter(path) is source.get_parameter(path)


def test_transfer_makes_what_is_missing_as_it_was() -> None:
    source = nn.Module()
    source.register_buffer("mask", torch.ones(2))
    P.register_parametrization(source, "mask", Double())
    target = P.transfer_parametrizations_and_params(source, nn.Linear(2, 2), "mask")
    torch.testing.assert_close(target.mask, source.mask)
    assert "mask" not in dict(target.named_parameters())
    with pytest.raises(ValueError, match="on 'weight'"):
        P.transfer_parametrizations_and_params(source, nn.Linear(2, 2), "weight")
