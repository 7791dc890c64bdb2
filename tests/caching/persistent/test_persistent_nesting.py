"""Persistent scopes in others, and parametrized originals in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import paramdesc as P
from tests.caching.persistent.layers import assert_right, exponential, read_in
from tests.helpers import chain_of, train_step


@pytest.mark.parametrize("is_outer", [True, False])
def test_it_nests_with_ordinary_scopes(is_outer: bool) -> None:
    layer, parametrization = exponential()
    persistent, ordinary = P.cached(layer, persistent=True), P.cached()
    scopes = (persistent, ordinary) if is_outer else (ordinary, persistent)
    with torch.no_grad():
        with scopes[0], scopes[1]:
            first = layer.weight
        with scopes[0], scopes[1]:
            assert layer.weight is first
            train_step(layer)
            assert_right(layer)
    assert parametrization.calls.count == 2 + 1
    with scopes[0]:
        with scopes[1]:
            first = layer.weight
            assert first.requires_grad
        assert layer.weight is first  # the outer one owns what needs a gradient


def test_one_object_may_be_entered_again_inside_itself() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad(), persistent:
        first = layer.weight
        with persistent:
            assert layer.weight is first
        assert layer.weight is first
    with torch.no_grad():
        assert read_in(persistent, layer) is first
    assert parametrization.calls.count == 1


def test_a_map_may_read_what_is_being_evaluated() -> None:
    layer, parametrization = exponential()
    depths: list[int] = []

    def read_again(*_: Any) -> None:
        depths.append(len(depths))
        if len(depths) < 3:
            assert layer.weight is not None

    parametrization.register_forward_pre_hook(read_again)
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad(), persistent:
        assert_right(layer)
    with torch.no_grad(), persistent:
        assert layer.weight is layer.weight


def test_an_original_that_is_parametrized_is_kept_and_watched() -> None:
    layer, _ = exponential()
    chain = chain_of(layer)
    P.register_parametrization(chain, "original", torch.sinh)
    layer.eval()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        assert read_in(persistent, layer) is read_in(persistent, layer)
        before = read_in(persistent, layer)
        chain.parametrizations.original.original.add_(1)
        with persistent:
            assert layer.weight is not before
            assert_right(layer)
