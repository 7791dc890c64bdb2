"""When a value in a scope may be used again."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from tests.caching.changes import OF_MAPS, assign, own, rebind, replace_data
from tests.helpers import Counting, counting, original_of


def step(linear: nn.Module) -> None:
    with torch.no_grad():
        original_of(linear).add_(1)


CHANGES: dict[str, Callable[[Any], object]] = {
    "in-place write": step,
    "write through .data": replace_data,
    "assignment": assign,
    "new original": rebind,
    "load_state_dict": lambda m: m.load_state_dict(
        {name: value + 1 for name, value in m.state_dict().items()}
    ),
    "double": lambda m: m.double(),
    "eval": lambda m: m.eval(),
    "eval of the map": own(lambda p: p.eval()),
    "the map's parameter": own(lambda p: p.shift.data.fill_(1) and p.shift.add_(1)),
    **OF_MAPS,
    "the map replaced": lambda m: m.parametrizations.weight.__setitem__(0, Counting().double()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_inside_the_scope(name: str) -> None:
    linear, _ = counting()
    with P.cached(), torch.no_grad():
        before = linear.weight
        assert linear.weight is before
        CHANGES[name](linear)
        assert linear.weight is not before
        expected = linear.get_submodule("parametrizations.weight")()
        torch.testing.assert_close(linear.weight, expected, rtol=0, atol=0)


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimizer_step_is_seen_inside_the_scope(fused: bool) -> None:
    linear, _ = counting()
    optimizer = torch.optim.Adam(linear.parameters(), lr=0.1, fused=fused)
    torch.autograd.backward(linear.weight.sum())
    with P.cached(), torch.no_grad():
        before = linear.weight
        optimizer.step()
        assert not torch.equal(linear.weight, before)


def test_a_write_to_the_value_itself_is_not_kept() -> None:
    linear, _ = counting()
    with P.cached(), torch.no_grad():
        before = linear.weight.clone()
        linear.weight.zero_()
        torch.testing.assert_close(linear.weight, before)


def test_a_value_without_gradient_is_not_used_where_there_is_one() -> None:
    linear, _ = counting()
    with P.cached():
        with torch.no_grad():
            assert not linear.weight.requires_grad
        assert linear.weight.requires_grad
        with torch.no_grad():
            assert not linear.weight.requires_grad
        with torch.inference_mode():
            assert linear.weight.is_inference()
            assert linear.weight is linear.weight
        assert not linear.weight.is_inference()
        original_of(linear).requires_grad_(False)
        linear.get_submodule("parametrizations.weight.0").requires_grad_(False)
        assert not linear.weight.requires_grad


def test_freezing_the_original_is_seen() -> None:
    linear = P.register_parametrization(nn.Linear(2, 2), "weight", torch.exp)
    with P.cached():
        assert linear.weight.requires_grad
        original_of(linear).requires_grad_(False)
        assert not linear.weight.requires_grad


def test_a_value_under_autocast_stays_there() -> None:
    linear = P.register_parametrization(nn.Linear(2, 2), "weight", lambda X: X @ X)
    with P.cached():
        with torch.autocast("cpu", torch.bfloat16):
            assert linear.weight.dtype == torch.bfloat16
            assert linear.weight is linear.weight
        assert linear.weight.dtype == torch.float32
        with torch.autocast("cpu", torch.float16):
            assert linear.weight.dtype == torch.float16


def test_two_backward_passes_in_one_scope_get_a_graph_each() -> None:
    linear, parametrization = counting()
    gradients = []
    with P.cached():
        for _ in range(2):
            linear.zero_grad()
            assert linear.weight is linear.weight
            torch.autograd.backward(linear(torch.ones(1, 3)).sum())
            gradients.append(original_of(linear).grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])
    assert parametrization.calls.count == 2


def test_a_backward_pass_that_does_not_reach_the_value_does_not_end_it() -> None:
    linear, _ = counting()
    other = torch.ones(3, requires_grad=True)
    with P.cached():
        first = linear.weight
        torch.autograd.backward(other.sum())
        assert linear.weight is first


def test_the_backward_pass_may_come_after_the_scope() -> None:
    linear, _ = counting()
    with P.cached():
        loss = linear(linear(torch.ones(1, 3))).sum()
    torch.autograd.backward(loss)
    assert original_of(linear).grad.abs().sum() > 0


def test_a_kept_value_in_a_chain_is_itself_made_of_kept_values() -> None:
    linear: Any = P.register_parametrization(nn.Linear(2, 2), "weight", torch.exp)
    chain = linear.parametrizations.weight
    P.register_parametrization(chain, "original", torch.sinh)
    with P.cached(linear) as scope:
        assert linear.weight is linear.weight
        assert chain.original is chain.original
        assert scope.misses == 2
        with torch.no_grad():
            chain.parametrizations.original.original.add_(1)
        torch.testing.assert_close(linear.weight, chain.original.exp())


def test_an_unsafe_map_may_return_what_is_no_tensor() -> None:
    pair: Any = lambda X: (X, X)  # noqa: E731
    linear: Any = P.register_parametrization(nn.Linear(2, 2), "weight", pair, unsafe=True)
    with P.cached():
        assert isinstance(linear.weight, tuple)
        assert linear.weight is not linear.weight


def test_an_inference_tensor_is_evaluated_at_each_read() -> None:
    with torch.inference_mode():
        linear, _ = counting()
    with torch.inference_mode(), P.cached():
        before = linear.weight
        original_of(linear).add_(1)
        assert not torch.equal(linear.weight, before)


def test_a_new_attribute_of_a_map_that_hides_one_of_its_class_is_noticed() -> None:
    class Scaled(nn.Module):
        factor = 1.0

        def forward(self, X: Tensor) -> Tensor:
            return self.factor * X

    scaled = Scaled()
    layer = P.register_parametrization(nn.Linear(2, 2), "weight", scaled)
    with P.cached():
        before = layer.weight
        assert layer.weight is before
        scaled.factor = 2.0
        torch.testing.assert_close(layer.weight, 2 * before)
        del scaled.factor
        torch.testing.assert_close(layer.weight, before)


def test_an_outdated_value_is_freed_before_the_new_one_is_made() -> None:
    linear, parametrization = counting()
    alive: list[bool] = []
    with P.cached():
        value = weakref.ref(linear.weight)
        parametrization.register_forward_pre_hook(lambda *_: alive.append(value() is not None))
        step(linear)
        assert linear.weight is not None
    assert alive == [False]
