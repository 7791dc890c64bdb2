"""Every map of the library in a batched scope: three alike weights and an odd one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.caching import together
from paramdesc.chain.alike import batching_of
from tests.parametrizations.all_cases import CASES

IN_SUBSPACES = "convolution norm"
"""Singular vectors of convolutions come in pairs with the same value: rounding chooses the pair."""


class Holder(nn.Module):
    weight: Tensor


def holders(name: str) -> Any:
    """Three weights under the map, and one under the map with a parameter that is not trained."""
    torch.manual_seed(0)
    made = nn.ModuleList()
    for _ in range(4):
        holder = Holder()
        holder.weight = nn.Parameter(CASES[name].weight())
        P.register_parametrization(holder, "weight", CASES[name].make(), unsafe=True)
        made.append(holder)
    made[1].requires_grad_(False)
    return made.double()


def train(model: Any, steps: int, batched: bool) -> tuple[list[Any], list[int]]:
    seen: list[Any] = []
    sizes: list[int] = []
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.5) if parameters else None
    for step in range(steps):
        with P.cached(model, batched=batched) as scope:
            values = [holder.weight for holder in model]
            sizes = [row.together for row in scope.report()]
            torch.manual_seed(step)
            losses = [(x * torch.randn(x.shape, dtype=x.dtype)).sum() for x in values if x.grad_fn]
            if losses:
                torch.stack([loss.real for loss in losses]).sum().backward()  # type: ignore[no-untyped-call]
        seen += [value.detach().clone() for value in values]
        seen += [None if p.grad is None else p.grad.clone() for p in parameters]
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
    return seen, sizes


@pytest.mark.parametrize("name", CASES)
def test_a_batch_has_the_values_and_gradients_of_single_evaluations(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "fewest_together", lambda *_: 2)
    one = holders(name)
    other = copy.deepcopy(one)
    expected, alone = train(one, 3, batched=False)
    found, sizes = train(other, 3, batched=True)
    for x, y in zip(found, expected, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            # where there are complex numbers, they are in single precision
            tolerance = 2e-5 if x.dtype in (torch.complex64, torch.float32) else 1e-7
            torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)
    assert alone == [1] * 4
    is_batched = batching_of(next(one[0].parametrizations.weight.maps())) != "never"
    is_trained = any(p.requires_grad for p in one.parameters())
    assert sizes == ([3, 1, 3, 3] if is_trained else [4] * 4) if is_batched else [1] * 4
    states = [(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True)]
    for a, b in states if not name.startswith(IN_SUBSPACES) else []:
        if a.is_floating_point():
            torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-6)
