"""Deferred scopes in others, as decorators, and with other options."""

from __future__ import annotations

import asyncio

import torch
from torch import nn

import paramdesc as P
from tests.caching.deferred.comparing import assert_same_gradients
from tests.caching.deferred.counted import counted
from tests.caching.deferred.loops import accumulate, backward, batches, loss_of
from tests.caching.deferred.models import layer
from tests.helpers import original_of


def test_a_value_of_an_outer_scope_has_its_gradient_at_once() -> None:
    linear = layer()
    with P.cached(linear), P.cached(linear, deferred=True) as inner:
        accumulate(linear)
        assert original_of(linear).grad is not None
        before = original_of(linear).grad.clone()
        inner.backward()
        assert torch.equal(original_of(linear).grad, before)


def test_a_value_of_an_outer_deferred_scope_waits_for_that() -> None:
    linear = layer()
    with P.cached(linear, deferred=True):
        for kind in (P.cached(linear), P.cached(linear, deferred=True)):
            with kind:
                accumulate(linear)
            assert original_of(linear).grad is None
    expected = layer()
    expected.load_state_dict(linear.state_dict())
    accumulate(expected)
    accumulate(expected)
    assert_same_gradients(linear, expected)


def test_what_an_inner_scope_adds_ends_with_it() -> None:
    first, second = layer(), layer()
    with P.cached(first, deferred=True):
        with P.cached(second, deferred=True):
            accumulate(nn.Sequential(first, second))
        assert original_of(first).grad is None
        assert original_of(second).grad is not None
    assert original_of(first).grad is not None


def test_a_decorated_function_has_its_gradients_when_it_returns() -> None:
    linear, passes = counted()
    run = P.cached(linear, deferred=True)(accumulate)
    for number in (1, 2):
        run(linear)
        assert passes == {"forward": number, "backward": number}
        assert original_of(linear).grad is not None


def test_a_decorated_coroutine_has_its_gradients_when_it_returns() -> None:
    linear, passes = counted()

    @P.cached(linear, deferred=True)
    async def run() -> None:
        for batch in batches():
            await asyncio.sleep(0)
            backward(loss_of(linear(batch)))

    async def main() -> None:
        await asyncio.gather(run(), run())

    asyncio.run(main())
    assert passes == {"forward": 2, "backward": 2}


def test_a_scope_may_be_persistent_and_deferred() -> None:
    linear, passes = counted()
    linear.eval()
    scope = P.cached(linear, persistent=True, deferred=True)
    for number in (1, 2):
        with scope:
            with torch.no_grad():
                linear(batches()[0])
            accumulate(linear)
        assert passes == {"forward": 1 + number, "backward": number}
