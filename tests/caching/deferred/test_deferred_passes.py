"""Deferred gradients take one evaluation and one backward pass of the maps."""

from __future__ import annotations

import torch

import paramdesc as P
from tests.caching.deferred.comparing import assert_same_gradients
from tests.caching.deferred.counted import counted
from tests.caching.deferred.loops import accumulate, backward, batches, loss_of
from tests.caching.deferred.models import layer
from tests.helpers import Double, Exp, original_of


def test_sixteen_passes_take_one_evaluation_and_one_backward_pass_of_the_map() -> None:
    linear, passes = counted()
    with P.cached(linear, deferred=True) as scope:
        for batch in batches(16):
            backward(loss_of(linear(batch)))
        assert passes == {"forward": 1}
    assert passes == {"forward": 1, "backward": 1}
    assert (scope.misses, scope.hits) == (1, 15)


def test_each_call_of_backward_takes_one_of_the_map() -> None:
    linear, passes = counted()
    with P.cached(linear, deferred=True) as scope:
        for number in (1, 2, 3):
            accumulate(linear)
            scope.backward()
            assert passes == {"forward": number, "backward": number}
        scope.backward()
    assert passes == {"forward": 3, "backward": 3}


def test_a_kept_graph_takes_no_second_evaluation() -> None:
    linear, passes = counted()
    with P.cached(linear, deferred=True) as scope:
        accumulate(linear)
        scope.backward(retain_graph=True)
        accumulate(linear)
    assert passes == {"forward": 1, "backward": 2}
    expected = layer(Exp())
    expected.load_state_dict(dict(linear.state_dict()))  # of another map, on purpose
    accumulate(expected)
    accumulate(expected)
    assert_same_gradients(linear, expected)


def test_a_value_that_no_gradient_reaches_takes_no_backward_pass() -> None:
    linear, passes = counted()
    with P.cached(linear, deferred=True) as scope:
        assert linear.weight is linear.weight
        scope.backward()
    assert passes == {"forward": 1}
    assert original_of(linear).grad is None


def test_gradients_in_bfloat16_add_up_in_float32() -> None:
    linear = layer(Double()).bfloat16()
    with P.cached(linear, deferred=True):
        for factor in [1.0] + 256 * [2.0**-9]:  # in bfloat16, 1 + 2^-9 is 1
            backward((factor * linear.weight).sum())
    assert original_of(linear).grad.dtype == torch.bfloat16
    assert torch.equal(original_of(linear).grad, torch.full((3, 3), 3.0, dtype=torch.bfloat16))
