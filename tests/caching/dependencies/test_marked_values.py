"""A value that a reader has marked is not handed out to another reader."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import paramdesc as P
from tests.caching.dependencies.kinds import KINDS, weighing
from tests.helpers import Double, original_of


def mark(tensor: Tensor) -> None:
    tensor.note = 1  # type: ignore[attr-defined]


def retain(tensor: Tensor) -> None:
    tensor.retain_grad()
    tensor.register_hook(lambda gradient: gradient)  # type: ignore[no-untyped-call]


WITH_GRADIENTS: dict[str, Callable[[Any], object]] = {
    "hook": lambda v: v.register_hook(lambda gradient: gradient / 2),
    "another hook": retain,
    "attribute": mark,
    "written to": lambda v: v.data.zero_() if v.is_leaf else v.mul_(2),
}
WITHOUT: dict[str, Callable[[Any], object]] = {
    "attribute": mark,
    "requires_grad_": lambda v: v.requires_grad_(),
    "written to": lambda v: v.zero_(),
    "written to through a view": lambda v: v.view(-1)[0].zero_(),
    "resized": lambda v: v.resize_(1),
    "exchanged": lambda v: v.set_(torch.ones(1)),
}


@pytest.mark.parametrize("change", WITH_GRADIENTS)
def test_in_a_scope_with_gradients(change: str) -> None:
    with KINDS["with gradients"](weighing(Double())) as read:
        value = read()
        assert read() is value
        WITH_GRADIENTS[change](value)
        other = read()
        assert other is not value
        assert read() is other


@pytest.mark.parametrize("change", ["hook", "another hook", "attribute"])
def test_in_a_deferred_scope(change: str) -> None:
    with KINDS["deferred"](weighing(Double())) as read:
        value = read()
        WITH_GRADIENTS[change](value)
        assert read() is not value


@pytest.mark.parametrize("kind", ["ordinary", "persistent, entered anew", "auto_cache"])
@pytest.mark.parametrize("change", WITHOUT)
def test_in_a_scope_without_gradients(change: str, kind: str) -> None:
    layer = weighing(Double())
    with KINDS[kind](layer) as read:
        value = read()
        assert read() is value
        with torch.no_grad():
            WITHOUT[change](value)
        other = read()
        assert other is not value
        assert torch.equal(other, 2 * original_of(layer).detach())


@pytest.mark.parametrize("deferred", [False, True])
def test_hooks_halve_each_gradient_once(deferred: bool) -> None:
    gradients = []
    for scope in (None, P.cached(deferred=deferred)):
        torch.manual_seed(0)
        layer = weighing(Double()).train()
        with scope or contextlib.nullcontext():
            loss: Any = 0
            for _ in range(4):
                weight: Any = layer()
                weight.register_hook(lambda gradient: gradient / 2)
                loss = loss + weight.sum()
            loss.backward()
        gradients.append(original_of(layer).grad)
    torch.testing.assert_close(gradients[0], torch.full((3, 3), 4.0))
    torch.testing.assert_close(gradients[1], gradients[0])
