"""A layer whose map counts, and what its weight must be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import paramdesc as P
from tests.helpers import Counting, chain_of, counting


def exponential(n: int = 3, device: str = "cpu") -> tuple[Any, Counting]:
    """A layer in evaluation mode, and its map."""
    layer, parametrization = counting(n, device)
    return layer.eval(), parametrization


def fresh(layer: nn.Module) -> Tensor:
    """What the weight must be now."""
    value: Tensor = chain_of(layer)()
    return value


def assert_right(layer: Any) -> None:
    torch.testing.assert_close(layer.weight, fresh(layer), rtol=0, atol=0)


def read_in(scope: P.cached, layer: Any) -> Tensor:
    with scope:
        value: Tensor = layer.weight
        return value
