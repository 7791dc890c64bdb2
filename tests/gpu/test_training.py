"""Kept values follow the optimizers and the mixed precision that people train with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.parametrizations import Orthogonal, SpectralNorm, Symmetric
from tests.gpu.device import DEVICE

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "plain": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "capturable": {"capturable": True},
}
MAPS: dict[str, Any] = {
    "symmetric": Symmetric,
    "orthogonal": lambda: Orthogonal("cayley"),
    "spectral norm": SpectralNorm,
}


def model_with(make: Any) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)).to(DEVICE)
    for layer in (model[0], model[2]):
        P.register_parametrization(layer, "weight", make())
    return model


def options(name: str) -> dict[str, Any]:
    if name == "capturable" and DEVICE != "cuda":
        pytest.skip("capturable optimizers take parameters on a CUDA device")
    return OPTIMIZERS[name]


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("map_name", MAPS)
def test_values_follow_each_step_in_a_scope(map_name: str, optimizer_name: str) -> None:
    kept, plain = model_with(MAPS[map_name]), model_with(MAPS[map_name])
    optimizers = [
        torch.optim.Adam(model.parameters(), lr=0.01, **options(optimizer_name))
        for model in (kept, plain)
    ]
    x = torch.randn(8, 16, device=DEVICE)
    with P.cached(kept) as scope:
        for _ in range(4):
            losses = []
            for model, optimizer in zip((kept, plain), optimizers, strict=True):
                optimizer.zero_grad()
                losses.append((model(x) - x).square().mean())
                losses[-1].backward()
                optimizer.step()
            torch.testing.assert_close(*losses)
    assert scope.misses == 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_mixed_precision_with_a_scaler(optimizer_name: str, dtype: torch.dtype) -> None:
    kept, plain = model_with(Symmetric), model_with(Symmetric)
    x = torch.randn(8, 16, device=DEVICE)
    runs = [
        (
            model,
            torch.optim.Adam(model.parameters(), lr=0.01, **options(optimizer_name)),
            torch.amp.GradScaler(DEVICE, init_scale=2.0**8),
        )
        for model in (kept, plain)
    ]
    with P.cached(kept):
        for _ in range(4):
            losses = []
            for model, optimizer, scaler in runs:
                optimizer.zero_grad()
                with torch.autocast(DEVICE, dtype=dtype):
                    loss = (model(x) - x).float().square().mean()
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                scaler.step(optimizer)
                scaler.update()
                losses.append(loss.detach())
            torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)


def test_deferred_gradients_with_a_scaler() -> None:
    kept, plain = model_with(Symmetric), model_with(Symmetric)
    x = torch.randn(8, 16, device=DEVICE)
    for model, deferred in ((kept, True), (plain, False)):
        scaler = torch.amp.GradScaler(DEVICE, init_scale=2.0**8)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with P.cached(model, deferred=deferred):
            for part in x.chunk(4):
                scaler.scale(model(part).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
    for mine, theirs in zip(kept.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
