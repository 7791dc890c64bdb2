"""The kinds of scope that a test reads a weight in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import paramdesc as P

__all__ = ["IN_A_BLOCK", "KINDS", "LASTING", "Reader", "weighing"]

Read = Callable[[], Tensor]
Reader = Callable[["Weight"], Any]


class Weight(nn.Linear):
    """A layer whose call gives its weight."""

    def forward(self, *_: Any) -> Tensor:
        return self.weight


def weighing(parametrization: Any, n: int = 3) -> Weight:
    """Such a layer, in evaluation mode, with a map on its weight."""
    return P.register_parametrization(Weight(n, n), "weight", parametrization).eval()


@contextmanager
def ordinary(layer: Weight) -> Iterator[Read]:
    with torch.no_grad(), P.cached(layer):
        yield layer


@contextmanager
def with_gradients(layer: Weight) -> Iterator[Read]:
    with P.cached(layer.train()):
        yield layer


@contextmanager
def deferred(layer: Weight) -> Iterator[Read]:
    with P.cached(layer.train(), deferred=True):
        yield layer


@contextmanager
def persistent_block(layer: Weight) -> Iterator[Read]:
    with torch.inference_mode(), P.cached(layer, persistent=True):
        read: Any = layer
        yield torch.inference_mode()(read)


@contextmanager
def entered_anew(layer: Weight, check_contents: bool | None = None) -> Iterator[Read]:
    kept = P.cached(layer, persistent=True, check_contents=check_contents)
    yield kept(torch.no_grad()(layer.__call__))


@contextmanager
def auto_cached(layer: Weight, check_contents: bool | None = None) -> Iterator[Read]:
    P.auto_cache(layer, check_contents=check_contents)
    yield torch.no_grad()(layer.__call__)


IN_A_BLOCK: dict[str, Reader] = {
    "ordinary": ordinary,
    "with gradients": with_gradients,
    "deferred": deferred,
    "in a persistent block": persistent_block,
}
LASTING: dict[str, Reader] = {
    "persistent, entered anew": entered_anew,
    "auto_cache": auto_cached,
}
KINDS = IN_A_BLOCK | LASTING
