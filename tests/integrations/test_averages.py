"""Averages of weights by diffusers and torch, with maps that have a state."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import paramdesc as P
from paramdesc.parametrizations import Symmetric, spectral_norm

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))

make_average: Any = get_ema_multi_avg_fn


def make() -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    P.register_parametrization(model, "0.weight", Symmetric())
    spectral_norm(model[2])
    return model


def step(model: nn.Module, optimizer: Any) -> None:
    optimizer.zero_grad()
    (model(X) - X).square().mean().backward()
    optimizer.step()


def largest_singular_value(model: Any) -> float:
    with torch.no_grad():
        return float(torch.linalg.matrix_norm(model[2].weight, 2))


def test_an_averaged_model_has_the_state_of_the_last_update() -> None:
    model = make()
    averaged = AveragedModel(model, multi_avg_fn=make_average(0.9))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, fused=True)
    for _ in range(50):
        step(model, optimizer)
        averaged.update_parameters(model)
    found: Any = averaged.module
    torch.testing.assert_close(found[0].weight, found[0].weight.T)
    assert largest_singular_value(found) == pytest.approx(1, abs=0.02)


def test_an_ema_of_diffusers_is_copied_into_a_model_that_caches() -> None:
    pytest.importorskip("diffusers", reason="needs diffusers: the extra `integrations`")
    from diffusers.training_utils import EMAModel

    model = make()
    ema = EMAModel(model.parameters(), decay=0.9)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(30):
        step(model, optimizer)
        ema.step(model.parameters())
    scope = P.auto_cache(model.eval())
    with torch.no_grad():
        online = model(X)
        expected = copy.deepcopy(model)
        for x, average in zip(expected.parameters(), ema.shadow_params, strict=True):
            x.copy_(average)
        ema.store(model.parameters())
        ema.copy_to(model.parameters())  # by .data.copy_, which torch does not count
        torch.testing.assert_close(model(X), expected(X))
        assert not torch.allclose(model(X), online)
        ema.restore(model.parameters())
        torch.testing.assert_close(model(X), online)
    assert scope.hits > 0
