"""Training loops, and models trained by them with and without deferral."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import paramdesc as P

Loop = Callable[[Any], None]


def batches(count: int = 4) -> list[Tensor]:
    """Micro-batches, the same ones each time."""
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randn(count, 5, 3, generator=generator, dtype=torch.float64)
    return list(numbers.to(torch.get_default_dtype()))


def loss_of(output: Tensor) -> Tensor:
    return output.abs().pow(2).sum()


def backward(loss: Tensor, **options: Any) -> None:
    torch.autograd.backward(loss, **options)


def accumulate(model: Any) -> None:
    for batch in batches():
        backward(loss_of(model(batch)))


def trained(make: Callable[[], nn.Module], loop: Loop, deferred: bool) -> nn.Module:
    torch.manual_seed(0)
    model = make()
    with P.cached(model, deferred=True) if deferred else nullcontext():
        loop(model)
    return model


INSIDE = r"(?s)'weight'.*Call loss.backward\(\) earlier, inside the block"
"""What is said of a backward pass through a value of a scope that has ended."""
