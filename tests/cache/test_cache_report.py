"""`scope.report()`: what is kept, since when, why it was dropped, hits, misses, and time by map."""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.cache.record import Cause, Reason
from paramdesc.cache.report import CacheReport, CacheRow
from tests.helpers import Double, Shift, Sum, chain_of, linear

INPUT = torch.ones(2, 3)


class Scaled(nn.Module):
    """The original, times a buffer and a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.power = 1

    def forward(self, X: Tensor) -> Tensor:
        return X * self.get_buffer("scale") * self.power

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y.clone()


def model() -> Any:
    """A sequence whose first layer has two maps."""
    first = linear(Scaled())
    P.register_parametrization(first, "weight", Double())
    return nn.Sequential(first, nn.ReLU(), linear(Shift())).eval()


def row_after(change: Callable[[Any], object]) -> CacheRow:
    """What is told of a layer that is read, changed, and read again, without gradients."""
    layer = linear(Scaled()).eval()
    with P.cached(layer) as scope, torch.no_grad():
        assert layer.weight is layer.weight
        change(layer)
        with torch.no_grad():
            assert layer.weight is not None
        return scope.report()["weight"]


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
    assert repr(report) == "<CacheReport on 2 tensors>"


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


# the time of each map


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


# why a value was dropped


def of_map(change: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda layer: change(chain_of(layer)[0])


def read_with_gradient(layer: Any) -> None:
    with torch.enable_grad():
        assert layer.weight.requires_grad


def read_in_inference_mode(layer: Any) -> None:
    with torch.inference_mode():
        assert layer.weight.is_inference()


def read_under_autocast(layer: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.weight is not None


def backward(layer: Any) -> None:
    with torch.enable_grad():
        layer.weight.sum().backward()
        assert layer.weight is not None


CAUSES: dict[str, tuple[Callable[[Any], object], Cause]] = {
    "write": (lambda m: chain_of(m).original.add_(1), Cause(Reason.WRITTEN, "original")),
    "write to a buffer": (of_map(lambda p: p.scale.mul_(2)), Cause(Reason.WRITTEN, "scale")),
    "load_state_dict": (
        lambda m: m.load_state_dict(m.state_dict()),
        Cause(Reason.WRITTEN, "original"),
    ),
    "new original": (
        lambda m: setattr(chain_of(m), "original", nn.Parameter(torch.ones(3, 3))),
        Cause(Reason.REPLACED, "original"),
    ),
    "new .data": (
        lambda m: setattr(chain_of(m).original, "data", torch.ones(3, 3)),
        Cause(Reason.REPLACED, "original"),
    ),
    "load_state_dict with assign": (
        lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}, assign=True),
        Cause(Reason.REPLACED, "original"),
    ),
    "new buffer": (
        of_map(lambda p: p.register_buffer("scale", torch.zeros(()))),
        Cause(Reason.REPLACED, "scale"),
    ),
    "frozen": (
        lambda m: m.requires_grad_(False),
        Cause(Reason.REQUIRES_GRAD, "original"),
    ),
    "map replaced": (
        lambda m: chain_of(m).__setitem__(0, Double().eval()),
        Cause(Reason.MAPS),
    ),
    "map added": (
        lambda m: P.register_parametrization(m, "weight", torch.sin),
        Cause(Reason.MAPS),
    ),
    "attribute": (of_map(lambda p: setattr(p, "power", 2)), Cause(Reason.ATTRIBUTE, "power")),
    "new attribute": (of_map(lambda p: setattr(p, "other", 2)), Cause(Reason.ATTRIBUTE)),
    "training mode": (lambda m: m.train(), Cause(Reason.ATTRIBUTE, "training")),
    "write to the value": (lambda m: m.weight.add_(1), Cause(Reason.VALUE_WRITTEN)),
    "backward pass": (backward, Cause(Reason.GRAD_MODE)),  # the last read has none again
    "gradients": (read_with_gradient, Cause(Reason.GRAD_MODE)),
    "inference mode": (read_in_inference_mode, Cause(Reason.INFERENCE_MODE)),
    "autocast": (read_under_autocast, Cause(Reason.OTHER_MODE)),
    "assignment": (lambda m: setattr(m, "weight", torch.ones(3, 3)), Cause(Reason.FORGOTTEN)),
    "conversion": (lambda m: m.double(), Cause(Reason.FORGOTTEN)),
}


@pytest.mark.parametrize("name", CAUSES)
def test_the_report_tells_why_a_value_was_dropped(name: str) -> None:
    change, cause = CAUSES[name]
    before = datetime.now()
    row = row_after(change)
    assert row.dropped == cause
    assert row.dropped_at is not None
    assert before <= row.dropped_at <= datetime.now()
    assert row.misses > 1


def test_a_backward_pass_through_the_value_is_told() -> None:
    layer = linear(Scaled())
    with P.cached(layer) as scope:
        torch.autograd.backward(layer.weight.sum())
        assert scope.report()["weight"].dropped is None  # no read has found it out
        assert layer.weight is not None
    assert scope.report()["weight"].dropped == Cause(Reason.CONSUMED)


def test_every_reason_is_met() -> None:
    met = {cause.reason for _, cause in CAUSES.values()} | {Reason.CONSUMED}
    assert met == set(Reason)


@pytest.mark.parametrize("name", ["write", "new original", "attribute", "map added"])
def test_a_persistent_scope_tells_of_changes_between_its_entries(name: str) -> None:
    change, cause = CAUSES[name]
    layer = linear(Scaled()).eval()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        with persistent:
            assert layer.weight is not None
        change(layer)
        with persistent as scope:
            assert layer.weight is not None
    row = scope.report()["weight"]
    assert row.dropped == cause
    assert (row.hits, row.misses) == (0, 2)


def test_a_read_in_another_mode_drops_no_value_that_outlives_the_scope() -> None:
    layer = linear(Scaled()).eval()
    with P.cached(layer, persistent=True) as scope:
        with torch.no_grad():
            kept = layer.weight
        assert layer.weight.requires_grad
        assert scope.report()["weight"].dropped is None
        with torch.no_grad():
            assert layer.weight is kept
    row = scope.report()["weight"]
    assert (row.hits, row.misses) == (1, 2)
    assert row.value == "(3, 3) torch.float32 cpu"


# the table


def masked(report: CacheReport) -> str:
    """The table with its times replaced, and with the widths that are left."""
    text = re.sub(r"\d\d:\d\d:\d\d", "hh:mm:ss", str(report))
    return re.sub(r"(\d Scaled|\d Double|\d Shift) [\d.e+-]+ (?:us|ms|s)", r"\1 t", text)


def test_the_table_is_readable() -> None:
    network = model()
    with P.cached(network) as scope, torch.no_grad():
        network(INPUT)
        network(INPUT)
        chain_of(network[0]).original.add_(1)
        assert network[0].weight is not None
        chain_of(network[2])[0].eval().shift.requires_grad_(False)
        network(INPUT)
        lines = [re.sub(r"  +", "  ", line) for line in masked(scope.report()).splitlines()]
        widths = {line.index("hh:mm:ss") for line in masked(scope.report()).splitlines()[1:]}
    assert lines == [
        "tensor  kept  since  hits  misses  time in its maps  last dropped",
        "0.weight  (3, 3) float32 cpu  hh:mm:ss  2  2  0 Scaled t, 1 Double t  "
        "original: written to",
        "2.weight  (3, 3) float32 cpu  hh:mm:ss  1  2  0 Shift t  shift: requires_grad switched",
    ]
    assert len(widths) == 1


def test_the_exact_table_of_one_row() -> None:
    row = CacheRow(
        "encoder.weight",
        hits=12,
        misses=3,
        seconds={"0 Symmetric": 2.5e-5, "1 Cayley": 0.0125, "2 Slow": 3.0},
        value="(3, 3) torch.float32 cpu",
        bytes=36,
        since=datetime(2026, 1, 2, 3, 4, 5),
        dropped=Cause(Reason.WRITTEN, "original"),
    )
    empty = CacheRow("bias", hits=0, misses=0)
    assert str(CacheReport([row, empty])).splitlines() == [
        "tensor          kept                since     hits  misses  "
        "time in its maps                                 last dropped",
        "encoder.weight  (3, 3) float32 cpu  03:04:05    12       3  "
        "0 Symmetric 25 us, 1 Cayley 12.5 ms, 2 Slow 3 s  original: written to",
        "bias            -                   -            0       0  "
        "-                                                -",
    ]


def test_a_table_without_rows_has_its_title() -> None:
    with P.cached() as scope:
        text = str(scope.report())
    assert text == "tensor  kept  since  hits  misses  time in its maps  last dropped"


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
