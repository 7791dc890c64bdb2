"""`scope.report()` has a row for each tensor, of all scopes that keep its values."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.caching.record import Cause, Reason
from tests.caching.report.models import INPUT, Scaled, model
from tests.helpers import chain_of, linear

# rows


def test_each_tensor_has_a_row_by_its_path_in_the_order_of_the_model() -> None:
    network = model()
    with P.cached(network) as scope:
        assert len(scope.report()) == 0
        assert network[2].weight is not None
        assert network[0].weight is not None
        report = scope.report()
    assert [row.name for row in report] == ["0.weight", "2.weight"]
    assert report[0] is report["0.weight"]
    assert report[-1] is report["2.weight"]
    assert list(report[:1]) == [report[0]]
    assert report._ipython_key_completions_() == ["0.weight", "2.weight"]
    assert repr(report) == "<CacheReport on 2 tensors>"


@torch.no_grad()
def test_a_scope_shows_the_paths_of_what_it_keeps() -> None:
    network = model().eval()
    with P.cached(network) as scope, P.cached():
        network(INPUT)
        assert "holds=['0.weight', '2.weight']" in repr(scope)
    with P.cached(network[0].parametrizations.weight, network[2]) as scope:
        network(INPUT)
        assert "holds=['weight', 'weight']" in repr(scope)
    with P.cached() as scope:
        network(INPUT)
        assert "holds=['weight', 'weight']" in repr(scope)
    automatic = P.auto_cache(network)
    network(INPUT)
    assert "holds=['0.weight', '2.weight']" in repr(automatic)


def test_without_targets_rows_are_named_by_class() -> None:
    network = model()
    with P.cached() as scope:
        network(INPUT)
    assert [row.name for row in scope.report()] == ["Linear.weight", "Linear.weight"]


def test_a_row_is_found_by_name_or_the_names_are_told() -> None:
    network = model()
    with P.cached(network) as scope:
        network(INPUT)
    report = scope.report()
    with pytest.raises(KeyError, match=r"'weight'\. Rows: '0\.weight', '2\.weight'"):
        report["weight"]
    with pytest.raises(IndexError):
        report[2]


def test_hits_and_misses_are_counted_by_tensor() -> None:
    network = model()
    with P.cached(network) as scope, torch.no_grad():
        for _ in range(3):
            network(INPUT)
        chain_of(network[2]).original.add_(1)
        network(INPUT)
    counts = [(row.hits, row.misses) for row in scope.report()]
    assert counts == [(3, 1), (2, 2)]
    assert (scope.hits, scope.misses) == (5, 3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_the_kept_value_is_described(mode: Callable[[], Any]) -> None:
    network = model().double()
    before = datetime.now()
    with P.cached(network) as scope, mode():
        network(INPUT.double())
        row = scope.report()["0.weight"]
    assert row.value == "(3, 3) torch.float64 cpu"
    assert row.bytes == 9 * 8
    assert row.since is not None
    assert before <= row.since <= datetime.now()
    assert (row.dropped, row.dropped_at) == (None, None)


def test_since_is_the_time_of_the_last_evaluation() -> None:
    layer = linear(Scaled())
    with P.cached(layer) as scope, torch.no_grad():
        assert layer.weight is not None
        first = scope.report()["weight"]
        assert layer.weight is not None
        assert scope.report()["weight"].since == first.since
        chain_of(layer).original.add_(1)
        assert layer.weight is not None
        second = scope.report()["weight"]
    assert first.since is not None
    assert second.since is not None
    assert second.dropped_at is not None
    assert first.since <= second.dropped_at <= second.since


# after the scope


def test_after_the_scope_the_counts_stay_and_no_value() -> None:
    network = model()
    with P.cached(network) as scope, torch.no_grad():
        network(INPUT)
        network(INPUT)
        inside = scope.report()
    after = scope.report()
    assert [row.name for row in after] == [row.name for row in inside]
    assert [(row.hits, row.misses) for row in after] == [(1, 1), (1, 1)]
    assert [row.seconds for row in after] == [row.seconds for row in inside]
    assert all(row.value == "" and row.bytes == 0 and row.since is None for row in after)
    assert inside["0.weight"].value  # it is as of its making


@pytest.mark.parametrize("has_target", [True, False])
def test_neither_an_ended_scope_nor_a_report_keeps_a_module_alive(has_target: bool) -> None:
    layer = linear(Scaled())
    with P.cached(*[layer] if has_target else []) as scope:
        value = weakref.ref(layer.weight)
        report = scope.report()
    gone = [weakref.ref(layer), weakref.ref(chain_of(layer)), value]
    del layer
    assert [reference() for reference in gone] == [None, None, None]
    assert scope.report()[0].misses == report[0].misses == 1


# scopes that share what they keep


def test_a_persistent_scope_tells_of_all_its_entries() -> None:
    network = model()
    persistent = P.cached(network, persistent=True)
    with torch.no_grad():
        for _ in range(3):
            with persistent as scope:
                network(INPUT)
    row = scope.report()["0.weight"]
    assert (row.hits, row.misses) == (2, 1)
    with persistent as scope:
        assert scope.report()["0.weight"].value == "(3, 3) torch.float32 cpu"


def test_a_persistent_scope_tells_of_all_threads() -> None:
    network = model()
    persistent = P.cached(network, persistent=True)

    @torch.no_grad()
    def predict() -> None:
        with persistent:
            network(INPUT)

    for _ in range(3):
        thread = threading.Thread(target=predict)
        thread.start()
        thread.join(timeout=60)
    with persistent as scope:
        assert [(row.hits, row.misses) for row in scope.report()] == [(2, 1), (2, 1)]


def test_an_inner_scope_tells_of_nothing_that_an_outer_one_keeps() -> None:
    network = model()
    with P.cached() as outer, P.cached(network) as inner:
        network(INPUT)
    assert len(outer.report()) == 2
    assert len(inner.report()) == 0


def test_the_report_of_a_model_that_caches_by_itself_covers_that_model_only() -> None:
    network, other = model(), model()
    scope, second = P.auto_cache(network), P.auto_cache(other)
    with torch.no_grad():
        for _ in range(3):
            network(INPUT)
        other(INPUT)
    report = scope.report()
    assert [row.name for row in report] == ["0.weight", "2.weight"]
    assert [(row.hits, row.misses) for row in report] == [(2, 1), (2, 1)]
    assert [(row.hits, row.misses) for row in second.report()] == [(0, 1), (0, 1)]
    assert report["0.weight"].value == "(3, 3) torch.float32 cpu"
    assert list(report["0.weight"].seconds) == ["0 Scaled", "1 Double"]


def test_the_report_of_a_model_that_caches_by_itself_counts_its_training_too() -> None:
    layer = linear(Scaled())
    network = nn.Sequential(layer, layer)
    scope = P.auto_cache(network)
    for _ in range(3):
        network(INPUT)
    row = scope.report()["0.weight"]
    assert (row.hits, row.misses, row.value) == (3, 3, "")
    chain_of(layer).original.data = torch.ones(3, 3)
    with torch.no_grad():
        network.eval()(INPUT)
        chain_of(layer).original.add_(1)
        network(INPUT)
    assert scope.report()["0.weight"].dropped == Cause(Reason.WRITTEN, "original")
