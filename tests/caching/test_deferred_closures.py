"""Trainers whose `optimizer.step(closure)` computes the gradients in the closure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import paramdesc as P
from paramdesc.errors import DeferredGradientError
from tests.helpers import linear

EARLY = r"while gradients wait in cached\(\.\.\., deferred=True\)"
BATCHES = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(1))


class Ours(torch.optim.SGD):
    """Takes the closure by keyword only, behind another argument, as some optimizers do."""

    def step(self, scale: float = 1.0, *, closure: Any = None) -> Any:  # type: ignore[override]
        return super().step(closure)


KINDS: dict[str, Callable[..., Any]] = {
    "SGD": functools.partial(torch.optim.SGD, lr=0.1),
    "AdamW": functools.partial(torch.optim.AdamW, lr=0.1),
    "LBFGS": functools.partial(torch.optim.LBFGS, lr=0.1, max_iter=4),
    "keyword": functools.partial(Ours, lr=0.1),
}


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return linear()


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    loss: Tensor = model(batch).square().sum()
    return loss


def step(optimizer: Any, closure: Callable[[], Any], by_keyword: bool) -> Any:
    return optimizer.step(closure=closure) if by_keyword else optimizer.step(closure)


def weight_after(kind: str, deferred: bool, by_keyword: bool) -> Tensor:
    """Two micro-batches before the step, and the last one in its closure."""
    model = layer()
    optimizer = KINDS[kind](model.parameters())
    with P.cached(model, deferred=deferred) as scope:
        for batch in BATCHES[:2]:
            loss_of(model, batch).backward()  # type: ignore[no-untyped-call]

        def closure() -> Tensor:
            loss = loss_of(model, BATCHES[2])
            loss.backward()  # type: ignore[no-untyped-call]
            if deferred:
                scope.backward()
            return loss

        loss = step(optimizer, closure, by_keyword)
    assert loss is not None
    return model.weight.detach()


@pytest.mark.parametrize("by_keyword", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_closure_may_bring_the_gradients(kind: str, by_keyword: bool) -> None:
    by_keyword = by_keyword or kind == "keyword"
    expected = weight_after(kind, False, by_keyword)
    assert not torch.equal(expected, layer().weight)
    torch.testing.assert_close(weight_after(kind, True, by_keyword), expected)


@pytest.mark.parametrize("by_keyword", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_that_wait_after_the_closure_are_refused(kind: str, by_keyword: bool) -> None:
    model = layer()
    optimizer = KINDS[kind](model.parameters())
    before = model.weight.detach().clone()

    def closure() -> Tensor:
        loss = loss_of(model, BATCHES[0])
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with P.cached(model, deferred=True):
        with pytest.raises(DeferredGradientError, match=EARLY):
            step(optimizer, closure, by_keyword or kind == "keyword")
        assert torch.equal(model.weight, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_without_a_closure_is_refused(kind: str) -> None:
    if kind == "LBFGS":
        pytest.skip("it has no step without one")
    model = layer()
    optimizer = KINDS[kind](model.parameters())
    with P.cached(model, deferred=True):
        loss_of(model, BATCHES[0]).backward()  # type: ignore[no-untyped-call]
        for arguments in ({}, {"closure": None}):
            with pytest.raises(DeferredGradientError, match=EARLY):
                optimizer.step(**arguments)


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "LBFGS"])
def test_a_trainer_whose_closure_clears_the_gradients_first(kind: str) -> None:
    """As in Lightning: forward, zero_grad, backward and the hook after it, all in the closure."""

    def train(deferred: bool) -> Tensor:
        model = layer()
        optimizer = KINDS[kind](model.parameters())
        for batch in BATCHES:
            with P.cached(model, deferred=deferred) as scope:

                def closure(batch: Tensor = batch, scope: Any = scope) -> Tensor:
                    loss = loss_of(model, batch)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    if deferred:
                        scope.backward()
                    return loss

                optimizer.step(functools.partial(closure))
        return model.weight.detach()

    torch.testing.assert_close(train(True), train(False))


def test_a_closure_may_not_clear_what_waits_from_before() -> None:
    model = layer()
    optimizer = KINDS["SGD"](model.parameters())

    def closure() -> None:
        optimizer.zero_grad()

    with P.cached(model, deferred=True):
        loss_of(model, BATCHES[0]).backward()  # type: ignore[no-untyped-call]
        with pytest.raises(DeferredGradientError, match=r"zero_grad\(\) while gradients wait"):
            optimizer.step(closure)


def test_a_scope_in_the_closure() -> None:
    model, plain = layer(), layer()
    for trained, deferred in ((model, True), (plain, False)):
        optimizer = KINDS["LBFGS"](trained.parameters())

        def closure(trained: Any = trained, deferred: Any = deferred, opt: Any = optimizer) -> Any:
            opt.zero_grad()
            with P.cached(trained, deferred=deferred):
                losses = [loss_of(trained, batch) for batch in BATCHES]
                for loss in losses:
                    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
            return losses[0]

        optimizer.step(closure)
    torch.testing.assert_close(model.weight, plain.weight)


@pytest.mark.parametrize("enabled", [False, True])
def test_a_scaler_and_a_closure(enabled: bool) -> None:
    """torch takes a closure only where the scaler is off."""
    model = layer()
    optimizer = KINDS["SGD"](model.parameters())
    scaler = torch.amp.GradScaler("cpu", enabled=enabled)
    before = model.weight.detach().clone()
    with P.cached(model, deferred=True) as scope:

        def closure() -> Tensor:
            loss = loss_of(model, BATCHES[0])
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scope.backward()
            return loss

        if enabled:
            with pytest.raises(RuntimeError, match="Closure use is not currently supported"):
                scaler.step(optimizer, closure=closure)
        else:
            scaler.step(optimizer, closure=closure)
    assert torch.equal(model.weight, before) is enabled


def test_a_closure_stays_in_its_place() -> None:
    """Hooks see the arguments as the caller has written them, with a closure that checks."""
    model = layer()
    optimizer = KINDS["SGD"](model.parameters())
    seen: list[tuple[int, list[str]]] = []
    handle = register_optimizer_step_post_hook(
        lambda _, args, kwargs: seen.append((len(args), list(kwargs)))
    )
    try:
        with P.cached(model, deferred=True):
            optimizer.step(lambda: torch.zeros(()))
            optimizer.step(closure=lambda: torch.zeros(()))
    finally:
        handle.remove()
    assert seen == [(2, []), (1, ["closure"])]
