"""The replicas that `nn.DataParallel` makes."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc
from paramdesc.parametrizations import SpectralNorm
from tests.helpers import (
    Shift,
    chain_of,
    linear,
    train_step,
)
from tests.registration.copies.models import INPUTS
from tests.registration.models import nested


@pytest.fixture
def replicate(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module, int], list[Any]]:
    """`torch.nn.parallel.replicate` itself, with copies in the place of transfers."""
    module = importlib.import_module("torch.nn.parallel.replicate")

    def broadcast(tensors: Any, devices: Any, detach: bool = False) -> list[list[Tensor]]:
        if not detach:
            return [[x.clone() for x in tensors] for _ in devices]
        return [[x.detach() if device == 0 else x.clone() for x in tensors] for device in devices]

    monkeypatch.setattr(module, "_get_device_index", lambda device, optional: device)
    monkeypatch.setattr(module, "_broadcast_coalesced_reshape", broadcast)
    return lambda network, count: module.replicate(network, list(range(count)))


def test_replicas_give_the_same_outputs(model: nn.Module, replicate: Any) -> None:
    for replica in replicate(model, 2):
        assert type(replica) is type(model)
        assert replica(INPUTS).equal(model(INPUTS))


@pytest.mark.parametrize("in_scope", [False, True])
def test_each_replica_reads_its_own_originals(replicate: Any, in_scope: bool) -> None:
    model = nn.Sequential(linear(), nn.ReLU(), nested())
    with paramdesc.cached() if in_scope else torch.enable_grad():
        before = model(INPUTS)
        first, second = replicate(model, 2)
        assert first(INPUTS).equal(before)
        with torch.no_grad():
            chain_of(first[0]).original.add_(1)
            chain_of(first[2]).original1.add_(1)
        assert not first[0].weight.equal(model[0].weight)
        assert not first[2].weight.equal(model[2].weight)
        assert second(INPUTS).equal(before)
        assert model(INPUTS).equal(before)


def test_gradients_flow_from_the_replicas_to_the_model(replicate: Any) -> None:
    layer = linear(Shift())
    for replica in replicate(layer, 2):
        replica(INPUTS).sum().backward()
    twin = copy.deepcopy(layer)
    twin.zero_grad()
    twin(torch.cat([INPUTS, INPUTS])).sum().backward()
    for parameter, expected in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad)


def test_training_step_moves_the_state_of_the_model_through_its_replicas(replicate: Any) -> None:
    layer = linear(SpectralNorm())
    layer(INPUTS)
    state = chain_of(layer)[0]._u.clone()
    for replica in replicate(layer, 2):
        replica(INPUTS)
    assert chain_of(layer)[0]._u.equal(state)
    train_step(layer)
    for replica in replicate(layer, 2):
        replica(INPUTS)
    assert not chain_of(layer)[0]._u.equal(state)


def test_abandoned_replica_does_not_disturb_the_next(replicate: Any) -> None:
    layer: Any = linear()
    layer._replicate_for_data_parallel()
    kept = layer._replicate_for_data_parallel()
    first, second = replicate(layer, 2)
    with torch.no_grad():
        chain_of(first).original.add_(1)
    assert second.weight.equal(layer.weight)
    assert not first.weight.equal(layer.weight)
    assert kept is not first
