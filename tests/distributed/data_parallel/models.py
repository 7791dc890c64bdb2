"""A model in both engines, and how it is trained on one process and on several."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_maps

import paramdesc as P
from paramdesc import parametrizations as our_maps

__all__ = ["MAKERS", "STEPS", "distance", "scope_of", "train"]

STEPS, PARTS, SAMPLES = 2, 2, 8
Scope = Callable[[], AbstractContextManager[Any]]


def make(maps: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        maps.orthogonal(nn.Linear(8, 8)),
        nn.Tanh(),
        maps.weight_norm(nn.Linear(8, 8)),
        nn.Tanh(),
        maps.spectral_norm(nn.Linear(8, 8)),
    )


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "torch": lambda: make(torch_maps),
    "paramdesc": lambda: make(our_maps),
}


def scope_of(model: nn.Module, kind: str) -> Scope:
    if kind == "none":
        return nullcontext
    if kind == "auto":
        P.auto_cache(model)
        return nullcontext
    return lambda: P.cached(model, deferred=kind == "deferred", batched=kind == "batched")


def train(
    model: Any,
    scope: Scope = nullcontext,
    rank: int = 0,
    count: int = 1,
    around: Callable[[bool], AbstractContextManager[Any]] = lambda is_last: nullcontext(),
    steps: int = STEPS,
) -> list[tuple[int, int]]:
    """Accumulate the gradients of two parts in each step. Misses and hits of each scope.

    `around` is called with whether a part is the last one of its step.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    generator, counts = torch.Generator().manual_seed(1), []
    for _ in range(steps):
        with scope() as opened:
            for number in range(PARTS):
                batch = torch.randn(SAMPLES, 8, generator=generator).chunk(count)[rank]
                with around(number == PARTS - 1):
                    loss = model(batch).square().mean() / PARTS
                    loss.backward()
        if opened is not None:
            counts.append((opened.misses, opened.hits))
        optimizer.step()
        optimizer.zero_grad()
    return counts


def output_of(model: nn.Module) -> Tensor:
    inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model.eval()(inputs)  # type: ignore[no-any-return]


def distance(model: nn.Module, expected: nn.Module) -> float:
    """How far the outputs of two trained models are apart."""
    return (output_of(model) - output_of(expected)).abs().max().item()
