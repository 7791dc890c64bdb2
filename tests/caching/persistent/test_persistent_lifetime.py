"""What a persistent scope keeps alive, and what is copied and pickled with it."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from tests.caching.persistent.layers import exponential, read_in
from tests.helpers import Double, chain_of, train_step

# lifetime


def test_a_scope_without_targets_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Write cached\(model, persistent=True\)"):
        P.cached(persistent=True)


@pytest.mark.usefixtures("no_collector")
def test_values_and_modules_end_with_the_object_that_keeps_them() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        value = weakref.ref(read_in(persistent, layer))
    modules = [weakref.ref(x) for x in (layer, chain_of(layer), parametrization)]
    assert value() is not None
    del persistent
    assert value() is None
    del layer, parametrization
    assert [module() for module in modules] == [None, None, None]


def test_an_outdated_value_is_freed_before_the_new_one_is_made() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    alive: list[bool] = []
    with torch.no_grad():
        value = weakref.ref(read_in(persistent, layer))
        parametrization.register_forward_pre_hook(lambda *_: alive.append(value() is not None))
        train_step(layer)
        read_in(persistent, layer)
    assert alive == [False]


def test_the_object_is_copied_and_pickled_with_a_model_that_holds_it() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Double()).eval()
    model = nn.Sequential(layer)
    model.kept = P.cached(layer, persistent=True)  # type: ignore[assignment]
    twins: list[Any] = [model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for twin in twins:
        for _ in range(2):
            with twin.kept as scope, torch.no_grad():
                assert torch.equal(twin[0].weight, layer.weight)
        assert scope.misses == 1


def test_a_map_that_refers_to_its_module_does_not_keep_it_alive() -> None:
    def make() -> nn.Module:
        double = Double()
        layer = P.register_parametrization(nn.Linear(3, 3), "weight", double).eval()
        double.__dict__["host"] = [layer]
        return layer

    layer = make()
    told = P.auto_cache(layer)
    with torch.no_grad():
        assert layer.weight is layer.weight
    assert told.misses == 1
    gone = weakref.ref(layer)
    del layer, told
    gc.collect()
    assert gone() is None
