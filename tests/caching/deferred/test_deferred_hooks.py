"""Hooks on originals, modules, maps and values, with gradients that wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from tests.caching.deferred.comparing import assert_same
from tests.caching.deferred.loops import accumulate, backward, batches, loss_of, trained
from tests.caching.deferred.models import Times, layer, originals, tied, two_layers
from tests.helpers import chain_of, original_of


def test_linear_hooks_on_originals_give_the_same_and_run_once() -> None:
    calls: Counter[str] = Counter()

    def loop(model: Any) -> None:
        original = original_of(model)

        def triple(gradient: Tensor) -> Tensor:
            calls["tensor"] += 1
            return 3 * gradient

        def see(leaf: Tensor) -> None:
            calls["accumulated"] += 1
            assert leaf is original
            assert leaf.grad is not None

        original.register_hook(triple)
        original.register_post_accumulate_grad_hook(see)
        accumulate(model)

    for deferred, times in ((True, 1), (False, 4)):
        calls.clear()
        trained(layer, loop, deferred)
        assert calls == {"tensor": times, "accumulated": times}
    assert_same(layer, loop)


def test_an_optimizer_may_step_in_a_hook_on_its_original() -> None:
    linear = layer()
    original = original_of(linear)
    optimizer = torch.optim.SGD([original], lr=1e-3)
    before = original.detach().clone()

    def step(leaf: Tensor) -> None:
        optimizer.step()
        optimizer.zero_grad()

    original.register_post_accumulate_grad_hook(step)
    with P.cached(linear, deferred=True) as scope:
        for _ in range(2):
            accumulate(linear)
            scope.backward()
            assert original.grad is None
            assert not torch.equal(original, before)
            before = original.detach().clone()


def test_hooks_on_modules_run_at_each_pass_and_give_the_same() -> None:
    calls: Counter[str] = Counter()

    def loop(model: Any) -> None:
        def scale(module: nn.Module, gradients: Any, outputs: Any) -> Any:
            calls["backward"] += 1
            return tuple(None if x is None else 2 * x for x in gradients)

        def shift(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            calls["forward"] += 1
            return output + 1

        model[2].register_full_backward_hook(scale)
        model[0].register_forward_hook(shift)
        accumulate(model)

    trained(two_layers, loop, deferred=True)
    assert calls == {"backward": 4, "forward": 4}
    assert_same(two_layers, loop)


def test_hooks_on_maps_run_once_and_give_the_same() -> None:
    calls: Counter[str] = Counter()

    def loop(model: Any) -> None:
        def scale(module: nn.Module, gradients: Any, outputs: Any) -> Any:
            calls["backward"] += 1
            return (2 * gradients[0],)

        chain_of(model)[0].register_full_backward_hook(scale)
        accumulate(model)

    trained(layer, loop, deferred=True)
    assert calls == {"backward": 1}
    assert_same(layer, loop)


def test_a_hook_on_the_value_is_of_the_reader_that_set_it() -> None:
    def halve_half(model: Any) -> None:
        for number, batch in enumerate(batches()):
            weight = model.weight
            if number % 2:
                weight.register_hook(lambda gradient: gradient / 2)
            backward(nn.functional.linear(batch, weight, model.bias).square().mean())

    assert_same(layer, halve_half)


@pytest.mark.parametrize("make", [tied, layer], ids=["of two layers", "of two values"])
def test_hooks_on_an_original_run_once(make: Callable[[], nn.Module]) -> None:
    calls: Counter[str] = Counter()
    model = make()
    (original,) = originals(model)
    hooked: Any = original
    hooked.register_hook(lambda gradient: calls.update(["tensor"]))
    hooked.register_post_accumulate_grad_hook(lambda leaf: calls.update(["accumulated"]))
    with P.cached(model, deferred=True):
        for batch in batches():
            backward(loss_of(model(batch)))
            with torch.no_grad():  # the next pass goes through another value
                model(batch)
    assert calls == {"tensor": 1, "accumulated": 1}


def test_maps_may_share_a_part_of_their_graphs() -> None:
    def make() -> nn.Module:
        original = nn.Parameter(torch.randn(3, 3))
        shared = original.exp()
        model = nn.Sequential(layer(Times(lambda: shared)), layer(Times(lambda: shared)))
        model.register_parameter("shared", original)
        return model

    assert_same(make, lambda model: backward(loss_of(model(batches()[0]))))
