"""The report tells the time of each map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from tests.caching.report.models import INPUT, Scaled, model
from tests.helpers import Double, Shift, Sum, chain_of, linear


def test_the_time_of_each_map_is_told() -> None:
    network = model()
    with P.cached(network) as scope:
        network(INPUT)
    report = scope.report()
    assert list(report["0.weight"].seconds) == ["0 Scaled", "1 Double"]
    assert list(report["2.weight"].seconds) == ["0 Shift"]
    assert all(seconds > 0 for row in report for seconds in row.seconds.values())


def test_times_add_up_and_those_of_hits_are_none() -> None:
    layer = linear(Scaled())
    seconds = []
    with P.cached(layer) as scope, torch.no_grad():
        for change in (False, False, True):
            if change:
                chain_of(layer).original.add_(1)
            assert layer.weight is not None
            seconds.append(scope.report()["weight"].seconds["0 Scaled"])
    assert seconds[0] == seconds[1] < seconds[2]


def on_a_map(layer: nn.Module) -> None:
    chain_of(layer)[0].register_forward_hook(lambda *_: None)


def on_the_chain(layer: nn.Module) -> None:
    chain_of(layer).register_forward_hook(lambda *_: None)


@pytest.mark.parametrize("register", [on_a_map, on_the_chain])
def test_maps_with_hooks_are_timed_too(register: Callable[[nn.Module], None]) -> None:
    network = model()
    register(network[0])
    with P.cached(network) as scope:
        network(INPUT)
    assert list(scope.report()["0.weight"].seconds) == ["0 Scaled", "1 Double"]


def test_a_map_of_several_originals_is_timed_too() -> None:
    layer = linear(Sum())
    P.register_parametrization(layer, "weight", Double())
    with P.cached(layer) as scope:
        layer(INPUT)
    assert list(scope.report()["weight"].seconds) == ["0 Sum", "1 Double"]


def test_an_original_that_is_parametrized_has_a_row_and_times_of_its_own() -> None:
    layer = linear(Sum())
    P.register_parametrization(chain_of(layer), "original0", Shift())
    with P.cached(layer) as scope:
        layer(INPUT)
    report = scope.report()
    assert {row.name: list(row.seconds) for row in report} == {
        "weight": ["0 Sum"],
        "parametrizations.weight.original0": ["0 Shift"],
    }


def test_a_map_that_raises_leaves_the_times_of_those_before_it() -> None:
    layer = linear(Scaled())
    scope = P.cached(layer)
    P.register_parametrization(layer, "weight", torch.sin)
    chain_of(layer)[1].register_forward_pre_hook(raise_key_error)
    with scope as opened, pytest.raises(KeyError):
        layer(INPUT)
    row = opened.report()["weight"]
    assert list(row.seconds) == ["0 Scaled"]
    assert (row.hits, row.misses, row.value) == (0, 1, "")


def raise_key_error(*_: Any) -> None:
    raise KeyError
