"""A change between two entries of a persistent scope, or within one, is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from tests.caching.changes import CHANGES
from tests.caching.persistent.layers import assert_right, exponential, read_in
from tests.helpers import Double, chain_of, original_of

# what is noticed


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("place", ["in one entry", "between two", "in another entry"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed(name: str, place: str, mode: Callable[[], Any]) -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)
    with mode():
        before = read_in(persistent, layer)
    with torch.no_grad():
        if place != "in one entry":
            with P.cached() if place == "in another entry" else torch.no_grad():
                CHANGES[name](layer)
    with mode(), persistent:
        if place == "in one entry":
            assert layer.weight is before
            with torch.inference_mode(False), torch.no_grad():
                CHANGES[name](layer)
        assert layer.weight is not before
        assert_right(layer)


def test_a_removed_map_is_noticed() -> None:
    layer, parametrization = exponential()
    P.register_parametrization(layer, "weight", torch.sin)
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        before = read_in(persistent, layer)
        del chain_of(layer)._modules["1"]
        assert read_in(persistent, layer) is not before
        torch.testing.assert_close(read_in(persistent, layer), parametrization(original_of(layer)))


def test_a_parametrization_that_is_removed_and_registered_again_is_noticed() -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        before = read_in(persistent, layer).clone()
        P.remove_parametrizations(layer, "weight")
        torch.testing.assert_close(read_in(persistent, layer), before)
        P.register_parametrization(layer, "weight", torch.sinh)
        torch.testing.assert_close(read_in(persistent, layer), before.sinh())


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(("n", "device"), [(0, "cpu"), (3, "meta"), (0, "meta")])
def test_a_conversion_without_an_address_to_compare_is_noticed(n: int, device: str) -> None:
    layer, _ = exponential(n, device)
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        assert read_in(persistent, layer) is read_in(persistent, layer)
        layer.double()
        assert read_in(persistent, layer).dtype == torch.float64
        layer.to_empty(device="cpu")
        assert read_in(persistent, layer).device.type == "cpu"


def test_a_write_to_the_value_is_not_kept() -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        before = read_in(persistent, layer)
        expected = before.clone()
        before.zero_()
        torch.testing.assert_close(read_in(persistent, layer), expected)


def test_evaluation_mode_that_is_back_keeps_again() -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        before = read_in(persistent, layer).clone()
        layer.train()
        torch.testing.assert_close(read_in(persistent, layer), 3 * before)
        layer.eval()
        after = read_in(persistent, layer)
        torch.testing.assert_close(after, before)
        assert read_in(persistent, layer) is after


def test_each_mode_gets_a_tensor_that_it_can_use() -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)
    for _ in range(2):
        with torch.inference_mode():
            assert not read_in(persistent, layer).requires_grad
        with torch.no_grad():
            assert not read_in(persistent, layer).is_inference()
            assert not read_in(persistent, layer).requires_grad
        assert read_in(persistent, layer).requires_grad


def test_autocast_has_values_of_its_own() -> None:
    layer: Any = P.register_parametrization(nn.Linear(2, 2), "weight", lambda X: X @ X).eval()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                assert read_in(persistent, layer).dtype == torch.bfloat16
            assert read_in(persistent, layer).dtype == torch.float32


def test_another_part_of_the_same_memory_is_noticed() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Double()).eval()
    kept = P.cached(layer, persistent=True)
    original = layer.get_parameter("parametrizations.weight.original")
    with torch.no_grad():
        for _ in range(2):
            with kept:
                assert torch.equal(layer.weight, 2 * original)
            original.data = original.data.t()


def test_what_is_added_to_a_map_is_noticed() -> None:
    double = Double()
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", double).eval()
    kept = P.cached(layer, persistent=True)
    with kept as scope, torch.no_grad():
        assert layer.weight is layer.weight
        hook = double.register_forward_hook(lambda module, args, output: output + 1)
        original = layer.get_parameter("parametrizations.weight.original")
        assert torch.equal(layer.weight, 2 * original + 1)
        hook.remove()
        assert torch.equal(layer.weight, 2 * original)
    assert scope.misses == 3
