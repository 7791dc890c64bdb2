"""Compiled autograd, and checkpoints in compiled code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import compiled_autograd
from torch.utils.checkpoint import checkpoint

import paramdesc as P
from tests.graphs.backend import READS_GRAD, Graphs
from tests.graphs.compile.models import INPUT

pytestmark = READS_GRAD


@pytest.mark.parametrize("scope", [nullcontext, P.cached])
@pytest.mark.parametrize("is_inside", [False, True])
def test_compiled_autograd_gives_the_same_gradients(
    scope: Callable[[], AbstractContextManager[Any]], is_inside: bool, layer: nn.Linear
) -> None:
    compiled = Graphs("aot_eager").compile(layer)
    found = []
    for engine in (nullcontext(), compiled_autograd._enable(Graphs("aot_eager").compile)):
        layer.zero_grad()
        losses = []
        with engine:
            with scope() as opened:
                for _ in range(3):
                    losses.append((compiled(INPUT) + layer(INPUT)).sum())
                    if is_inside:
                        losses.pop().backward()
            torch.autograd.backward(losses) if losses else None
        found.append([p.grad for p in layer.parameters()])
        if opened is not None:
            assert opened.misses == (3 if is_inside else 1)
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("compiled_part", ["the region", "in the region"])
@pytest.mark.parametrize("is_inside", [False, True])
def test_checkpoints_give_the_same_gradients(
    reentrant: bool, compiled_part: str, is_inside: bool, layer: nn.Linear
) -> None:
    if compiled_part == "the region":
        run = torch.compile(
            lambda x: checkpoint(layer, x, use_reentrant=reentrant),
            backend="aot_eager",
            fullgraph=not reentrant,
        )
    else:
        part = torch.compile(layer, backend="aot_eager", fullgraph=True)

        def run(x: Tensor) -> Any:
            return checkpoint(part, x, use_reentrant=reentrant)

    inputs = INPUT.clone().requires_grad_()
    expected = torch.autograd.grad((2 * layer(inputs)).sum(), (inputs, *layer.parameters()))
    for _ in range(2):
        layer.zero_grad()
        inputs.grad = None
        with P.cached(layer):
            loss = (run(inputs) + run(inputs)).sum()
            if is_inside:
                loss.backward()
        if not is_inside:
            loss.backward()
        found = tuple(p.grad for p in (inputs, *layer.parameters()))
        torch.testing.assert_close(found, expected)
