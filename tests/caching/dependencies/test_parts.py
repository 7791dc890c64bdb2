"""A value ends with the graph of any kept value that it was made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from tests.caching.dependencies.kinds import KINDS, weighing
from tests.helpers import Double, Exp, chain_of


class Net(nn.Module):
    """A hypernetwork: one parametrized layer that makes the weights of others."""

    def __init__(self) -> None:
        super().__init__()
        self.net = P.register_parametrization(nn.Linear(3, 3), "weight", Exp())

    def forward(self, X: Tensor) -> Tensor:
        return self.net(X)  # type: ignore[no-any-return]


def nested() -> tuple[Any, Callable[[], Tensor]]:
    """A weight, and an original of it that is parametrized itself."""
    layer = weighing(Exp())
    P.register_parametrization(chain_of(layer), "original", torch.sinh)
    return layer, lambda: chain_of(layer).original


def two_of_one_net() -> tuple[Any, Callable[[], Tensor]]:
    net = Net()
    return weighing(net), weighing(net)


def by_a_closure() -> tuple[Any, Callable[[], Tensor]]:
    part = weighing(Exp())
    return weighing(lambda X: X * part.weight), part


def of_a_part_of_a_part() -> tuple[Any, Callable[[], Tensor]]:
    part = weighing(Exp())
    middle = weighing(lambda X: X * part.weight)
    return weighing(lambda X: X + middle.weight), part


PAIRS = [nested, two_of_one_net, by_a_closure, of_a_part_of_a_part]


@pytest.mark.parametrize("is_part_first", [False, True])
@pytest.mark.parametrize("make", PAIRS)
def test_a_backward_pass_through_a_part_ends_the_whole(
    make: Callable[[], Any], is_part_first: bool
) -> None:
    layer, part = make()
    with P.cached():
        whole, used = layer(), part()
        first, second = (used, layer) if is_part_first else (whole, part)
        first.sum().backward()
        second().sum().backward()  # raises if a kept value has a graph that was freed
        assert layer() is not whole


@pytest.mark.parametrize("make", PAIRS)
def test_gradients_are_those_without_a_scope(make: Callable[[], Any]) -> None:
    gradients = []
    for targets in ((), (nn.Identity(),)):  # the second covers nothing
        torch.manual_seed(0)
        layer, part = make()
        with P.cached(*targets):
            layer()
            part().sum().backward()
            (layer().sum() + part().square().sum()).backward()
        named = dict(layer.named_parameters(prefix="layer"))
        gradients.append([p.grad for name, p in named.items() if p.grad is not None])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_write_to_the_original_of_a_part_is_noticed(kind: str) -> None:
    part = weighing(Double())
    with KINDS[kind](weighing(lambda X: X * part.weight)) as read, P.cached(part):
        expected = 3 * read().detach()
        with torch.inference_mode(False), torch.no_grad():
            chain_of(part).original.mul_(3)
        torch.testing.assert_close(read().detach(), expected)
