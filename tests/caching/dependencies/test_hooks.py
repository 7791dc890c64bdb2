"""Hooks of maps, and of all modules, have a part in a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.caching.dependencies.kinds import KINDS, LASTING, weighing
from tests.caching.dependencies.places import in_hook
from tests.helpers import Double, chain_of

Adds = Callable[[Any, float], Any]


def after(module: Any, amount: float) -> Any:
    return module.register_forward_hook(lambda m, args, output: output + amount)


def before(module: Any, amount: float) -> Any:
    return module.register_forward_pre_hook(lambda m, args: (args[0] + amount / 2,))


def after_all(module: Any, amount: float) -> Any:
    def hook(m: Any, args: Any, output: Any) -> Any:
        return output + amount if m is module else None

    return nn.modules.module.register_module_forward_hook(hook)


def before_all(module: Any, amount: float) -> Any:
    def hook(m: Any, args: Any) -> Any:
        return (args[0] + amount / 2,) if m is module else None

    return nn.modules.module.register_module_forward_pre_hook(hook)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("add", [after, before, after_all, before_all])
def test_a_hook_that_is_added_replaced_or_removed_is_noticed(add: Adds, kind: str) -> None:
    layer = weighing(Double())
    with KINDS[kind](layer) as read:
        plain = read().detach().clone()
        for amount in (1.0, 5.0):
            handle = add(chain_of(layer)[0], amount)
            try:
                torch.testing.assert_close(read().detach(), plain + amount)
            finally:
                handle.remove()
        torch.testing.assert_close(read().detach(), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_that_a_hook_is_closed_over_is_watched(kind: str) -> None:
    bound = in_hook(torch.tensor(1.0))
    with KINDS[kind](weighing(bound.map)) as read:
        expected = 3 * read().detach()
        bound.get().mul_(3)
        torch.testing.assert_close(read().detach(), expected)


@pytest.mark.parametrize("kind", LASTING)
def test_a_hook_that_counts_does_not_keep_values_from_lasting(kind: str) -> None:
    calls = [0]

    def count(module: Any, args: Any, output: Tensor) -> None:
        calls[0] += 1

    double = Double()
    double.register_forward_hook(count)
    with KINDS[kind](weighing(double)) as read:
        assert read() is read()
    assert calls == [2]  # once at the registration
