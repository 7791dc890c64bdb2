"""The report tells why a value was dropped."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.caching.record import Cause, Reason
from paramdesc.caching.report import CacheRow
from tests.caching.report.models import Scaled
from tests.helpers import Double, chain_of, linear


def row_after(change: Callable[[Any], object]) -> CacheRow:
    """What is told of a layer that is read, changed, and read again, without gradients."""
    layer = linear(Scaled()).eval()
    with P.cached(layer) as scope, torch.no_grad():
        assert layer.weight is layer.weight
        change(layer)
        with torch.no_grad():
            assert layer.weight is not None
        return scope.report()["weight"]


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


def fused_step(layer: Any) -> None:
    optimizer = torch.optim.SGD([chain_of(layer).original], lr=0.1, fused=True)
    chain_of(layer).original.grad = torch.ones(3, 3)
    optimizer.step()


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
    "step of an optimizer": (fused_step, Cause(Reason.STEP)),
    "by hand": (P.invalidate, Cause(Reason.INVALIDATED)),
    "attribute of the value": (
        lambda m: setattr(m.weight, "note", 1),
        Cause(Reason.VALUE_MARKED),
    ),
    "value to train": (lambda m: m.weight.requires_grad_(), Cause(Reason.VALUE_MARKED)),
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


def test_a_write_that_nobody_counts_is_told_by_what_outlives_a_scope() -> None:
    layer = linear(Scaled()).eval()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        with persistent:
            assert layer.weight is not None
        chain_of(layer).original.data.mul_(2)
        with persistent as scope:
            assert layer.weight is not None
            assert scope.report()["weight"].dropped == Cause(Reason.REWRITTEN)


def test_every_reason_is_met() -> None:
    met = {cause.reason for _, cause in CAUSES.values()} | {Reason.CONSUMED, Reason.REWRITTEN}
    assert met | {Reason.CAPTURE} == set(Reason)  # in tests/caching/streams


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
