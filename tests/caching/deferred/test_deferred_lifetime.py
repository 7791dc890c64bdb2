"""Values and graphs of deferred scopes are freed at their end."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from tests.caching.deferred.loops import accumulate
from tests.caching.deferred.models import layer
from tests.helpers import chain_of


class Token:
    """Something that a graph holds, and that can be referred to weakly."""


class Traced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, X: Tensor, tokens: list[Any]) -> Tensor:
        ctx.token = Token()
        tokens.append(weakref.ref(ctx.token))
        return X.exp()

    @staticmethod
    def backward(*inputs: Any) -> Any:
        return inputs[1], None


class Traceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[Any] = []

    def forward(self, X: Tensor) -> Any:
        return Traced.apply(X, self.tokens)  # type: ignore[no-untyped-call]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("end", ["backward passes", "no backward pass", "an exception"])
def test_values_and_graphs_are_freed_at_the_end(end: str) -> None:
    linear = layer(Traceable())
    tokens = chain_of(linear)[0].tokens
    tokens.clear()
    with nullcontext() if end != "an exception" else pytest.raises(KeyError):  # noqa: SIM117
        with P.cached(linear, deferred=True):
            value = weakref.ref(linear.weight)
            (token,) = tokens
            if end != "no backward pass":
                accumulate(linear)
            assert value() is not None
            assert token() is not None
            if end == "an exception":
                raise KeyError
    assert value() is None
    assert token() is None


@pytest.mark.usefixtures("no_collector")
def test_a_graph_is_freed_when_its_gradient_has_gone_on() -> None:
    linear = layer(Traceable())
    tokens = chain_of(linear)[0].tokens
    tokens.clear()
    with P.cached(linear, deferred=True) as scope:
        for _ in range(3):
            accumulate(linear)
            scope.backward()
            assert [token() for token in tokens] == len(tokens) * [None]
        assert len(tokens) == 3


@pytest.mark.usefixtures("no_collector")
def test_a_model_is_freed_with_its_last_scope() -> None:
    linear = layer()
    with P.cached(linear, deferred=True) as scope:
        accumulate(linear)
    module = weakref.ref(linear)
    del linear
    assert module() is None
    assert scope.misses == 1
