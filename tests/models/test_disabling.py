"""Tensors that read as their originals inside a block of `disabled`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import paramdesc as P
from paramdesc.errors import DisabledError, SelectionError
from paramdesc.parametrizations import SpectralNorm, Symmetric
from tests.helpers import chain_of


def model() -> Any:
    layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    for layer in layers:
        P.register_parametrization(layer, "weight", Symmetric())
        P.register_parametrization(layer, "weight", SpectralNorm())
    return layers


def test_chosen_tensors_read_as_their_originals_and_nothing_else_changes() -> None:
    net = model()
    before = [layer.weight.detach().clone() for layer in net]
    keys = list(net.state_dict())
    with P.disabled(net, "0.weight"):
        assert net[0].weight is chain_of(net[0]).original
        assert net[1].weight.equal(before[1])
        with P.disabled(net, values={"0.weight": torch.eye(4)}):
            assert net[0].weight.equal(torch.eye(4))
        assert net[0].weight is chain_of(net[0]).original
    assert [layer.weight.equal(old) for layer, old in zip(net, before, strict=True)] == [True] * 2
    assert list(net.state_dict()) == keys


def test_scopes_neither_serve_nor_keep_what_is_read_inside() -> None:
    net = model()
    with P.cached(net):
        kept = net[0].weight
        with P.disabled(net), P.cached(net):
            assert net[0].weight is chain_of(net[0]).original
        assert net[0].weight is kept


def test_one_map_is_left_out() -> None:
    net = model()
    with P.disabled(net, maps=SpectralNorm):
        expected = chain_of(net[0])[0](chain_of(net[0]).original)
        assert net[0].weight.equal(expected)


def test_compiled_code_follows() -> None:
    net, x = model(), torch.randn(2, 4)
    compiled: Any = torch.compile(net, fullgraph=True, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(x), net(x))
        with P.disabled(net):
            torch.testing.assert_close(compiled(x), net(x))


def test_a_checkpointed_region_is_recomputed_alike() -> None:
    net, x = model(), torch.randn(2, 4, requires_grad=True)
    with P.disabled(net):
        expected = torch.autograd.grad(net(x).square().sum(), x)[0]
        loss = checkpoint(net, x, use_reentrant=False).square().sum()
    torch.testing.assert_close(torch.autograd.grad(loss, x)[0], expected)


def test_what_cannot_work_is_refused() -> None:
    net = model()
    with P.disabled(net), pytest.raises(DisabledError, match="cannot assign"):
        net[0].weight = torch.eye(4)
    with pytest.raises(SelectionError, match=r"0\.weight"), P.disabled(net, "0.wieght"):
        pass
    with P.disabled(net), pytest.raises(DisabledError, match="script"):
        P.jit.script(net)
