"""Recurrent networks, which keep their weights in a list besides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc
from tests.helpers import (
    Double,
    chain_of,
    train_step,
)

RECURRENT = [nn.RNN, nn.GRU, nn.LSTM]


@pytest.mark.parametrize("forward_first", [False, True])
@pytest.mark.parametrize("cls", RECURRENT)
def test_recurrent_network_copies(
    cls: Callable[[int, int], nn.RNNBase], forward_first: bool, make_copy: Callable[[Any], Any]
) -> None:
    network = paramdesc.register_parametrization(cls(3, 4), "weight_hh_l0", Double())
    sequence = torch.randn(5, 1, 3)
    if forward_first:
        network(sequence)
    twin = make_copy(network)
    assert twin(sequence)[0].equal(network(sequence)[0])
    train_step(twin, "weight_hh_l0")
    assert not twin(sequence)[0].equal(network(sequence)[0])
    twin(sequence)[0].sum().backward()
    assert chain_of(twin, "weight_hh_l0").original.grad is not None
    assert chain_of(network, "weight_hh_l0").original.grad is None


@pytest.mark.parametrize("cls", RECURRENT)
def test_recurrent_network_shows_a_step_at_once(cls: Callable[[int, int], nn.RNNBase]) -> None:
    network = paramdesc.register_parametrization(cls(3, 4), "weight_hh_l0", Double())
    plain = cls(3, 4)
    sequence = torch.randn(5, 1, 3)
    with paramdesc.cached():
        network(sequence)
        train_step(network, "weight_hh_l0")
        outputs = network(sequence)[0]
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(plain, name).copy_(getattr(network, name))
    assert outputs.equal(plain(sequence)[0])
