"""Deferred gradients are those of a loop without a scope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.caching.active import active_scopes
from tests.caching.deferred.comparing import assert_close, assert_same
from tests.caching.deferred.loops import accumulate, backward, batches, loss_of
from tests.caching.deferred.models import MODELS, layer, two_layers
from tests.helpers import Double, original_of


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_gradients_are_those_without_a_scope(make: Callable[[], nn.Module]) -> None:
    assert_same(make)


def test_a_map_that_returns_a_view_of_its_original_gets_its_gradient() -> None:
    class Transposed(nn.Module):
        def forward(self, X: Tensor) -> Tensor:
            return X.T

    assert_same(lambda: layer(Transposed()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_sparse_gradient_adds_up(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    embedding = nn.Embedding(5, 3, sparse=True, dtype=dtype)
    P.register_parametrization(embedding, "weight", Double())
    gradients = []
    for deferred in (True, False):
        embedding.zero_grad()
        with P.cached(embedding, deferred=deferred):
            for index in range(3):
                backward(loss_of(embedding(torch.tensor([1, index]))))
        gradients.append(original_of(embedding).grad.to_dense())
    assert gradients[1].abs().max() > 0
    assert_close(*gradients)


def test_a_gradient_is_added_to_what_is_in_grad() -> None:
    def loop(model: Any) -> None:
        for x in model.parameters():
            x.grad = torch.ones_like(x)
        accumulate(model)

    assert_same(two_layers, loop)
    model = two_layers()
    before = {x: torch.ones_like(x) for x in model.parameters()}
    for x, gradient in before.items():
        x.grad = gradient
    with P.cached(model, deferred=True):
        accumulate(model)
    assert all(x.grad is gradient for x, gradient in before.items())


def test_reads_without_gradients_between_the_passes_change_nothing() -> None:
    def loop(model: Any) -> None:
        for batch in batches():
            with torch.no_grad():
                model(batch)
            backward(loss_of(model(batch)))

    assert_same(two_layers, loop)


def test_a_value_that_only_a_graph_holds_still_gets_its_gradient() -> None:
    def loop(model: Any) -> None:
        losses = []
        for batch in batches():
            losses.append(loss_of(model(batch)))
            with torch.no_grad():  # takes its place in the scope
                model(batch)
        for loss in losses:
            backward(loss)

    assert_same(two_layers, loop)


def test_two_losses_of_one_pass_both_count() -> None:
    def loop(model: Any) -> None:
        for batch in batches():
            output = model(batch)
            backward(loss_of(output), retain_graph=True)
            backward(output.sum())

    assert_same(two_layers, loop)


def test_a_write_to_an_original_between_the_passes_starts_a_new_value() -> None:
    def loop(model: Any) -> None:
        for batch in batches():
            backward(loss_of(model(batch)))
            for scope in active_scopes():
                scope.backward()
            with torch.no_grad():
                original_of(model).mul_(0.5)

    assert_same(layer, loop)
