"""Compiled code in CUDA graphs: `torch.compile(mode="reduce-overhead")`.

On a CPU, the same programs run without graphs.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._triton import has_triton

import paramdesc as P
from paramdesc.parametrizations import Symmetric
from tests.gpu.device import DEVICE

pytestmark = pytest.mark.skipif(DEVICE == "cuda" and not has_triton(), reason="needs Triton")

OPTIONS: Any = {"mode": "reduce-overhead"} if DEVICE == "cuda" else {"backend": "aot_eager"}


def model() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32)).to(DEVICE)
    for layer in made:
        P.register_parametrization(layer, "weight", Symmetric())
    return made


def test_kept_values_are_used_and_follow_a_write() -> None:
    eager = model().eval()
    compiled: Any = torch.compile(eager, **OPTIONS)
    x = torch.randn(4, 32, device=DEVICE)
    with torch.no_grad(), P.cached(eager) as scope:
        for _ in range(4):
            torch.testing.assert_close(compiled(x), eager(x), rtol=1e-4, atol=1e-4)
        misses = scope.misses
        for parameter in eager.parameters():
            parameter.add_(0.1)
        for _ in range(4):
            torch.testing.assert_close(compiled(x), eager(x), rtol=1e-4, atol=1e-4)
        assert scope.misses == 2 * misses


@pytest.mark.parametrize("scoped", [False, True], ids=["uncached", "cached"])
def test_training_is_the_eager_training(scoped: bool) -> None:
    one, other = model(), model()
    compiled: Any = torch.compile(one, **OPTIONS)
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.01) for each in (one, other)]
    x = torch.randn(4, 32, device=DEVICE)
    for _ in range(5):
        mark_step: Any = torch.compiler.cudagraph_mark_step_begin
        mark_step()
        losses = []
        for run, optimizer in zip((compiled, other), optimizers, strict=True):
            optimizer.zero_grad()
            with P.cached(one, other) if scoped else P.cached(set()):
                loss = run(x).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach().clone())
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
