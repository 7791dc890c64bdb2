"""accelerate: accumulation, saved states, offloading, and models that are dispatched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import paramdesc as P
from paramdesc.parametrizations import orthogonal, spectral_norm

accelerate = pytest.importorskip("accelerate", reason="needs accelerate")

X = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))


def make() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    orthogonal(model[0])
    spectral_norm(model[2])
    return model


def train(epochs: int = 2, save: Path | None = None, load: Path | None = None, **setup: Any) -> Any:
    """The trained model, and how many evaluations its scope made."""
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=4, **setup)
    model: Any = make()
    rows: Any = X
    model, optimizer, loader = accelerator.prepare(
        model,
        torch.optim.AdamW(model.parameters(), 1e-2, fused=True),
        DataLoader(rows, batch_size=1),
    )
    if load is not None:
        accelerator.load_state(load)
    with P.cached(model, deferred=True) as scope:
        for _ in range(epochs):
            for batch in loader:
                with accelerator.accumulate(model):
                    accelerator.backward((model(batch) - batch).square().mean())
                    if accelerator.sync_gradients:
                        scope.backward()  # before all that reads or clears gradients
                        accelerator.clip_grad_norm_(model.parameters(), 1.0)
                        optimizer.step()
                        optimizer.zero_grad()
    if save is not None:
        accelerator.save_state(save)
    return model, scope.misses


def train_plainly() -> nn.Module:
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for start in (0, 4) * 2:
        for row in X[start : start + 4]:
            ((model(row) - row).square().mean() / 4).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_accumulation_evaluates_once_for_each_step() -> None:
    model, count = train()
    assert count == 4 * 2
    for name, tensor in train_plainly().state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, msg=name)


def test_a_step_without_the_deferred_gradients_is_refused() -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    model: Any = make()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.1))
    with P.cached(model, deferred=True) as scope:
        accelerator.backward(model(X).sum())
        with pytest.raises(RuntimeError, match=r"scope.backward\(\)"):
            optimizer.step()
        scope.backward()
        optimizer.step()


def test_a_saved_state_resumes_exactly(tmp_path: Path) -> None:
    whole, _ = train(2)
    train(1, save=tmp_path)
    resumed, _ = train(1, load=tmp_path)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


@pytest.mark.parametrize("way", ["cpu", "disk"])
@torch.no_grad()
def test_an_offloaded_model_gives_the_same(way: str, tmp_path: Path) -> None:
    expected = make().eval()(X)
    model = make().eval()
    device = torch.device("cpu")
    if way == "cpu":
        accelerate.cpu_offload(model, execution_device=device)
    else:
        accelerate.disk_offload(model, str(tmp_path), execution_device=device)
    assert all(p.device.type == "meta" for p in model.parameters())
    for _ in range(2):
        torch.testing.assert_close(model(X), expected)


@torch.no_grad()
def test_a_model_without_numbers_is_loaded_and_dispatched(tmp_path: Path) -> None:
    model = make().eval()
    accelerate.Accelerator(cpu=True).save_model(model, str(tmp_path))
    with accelerate.init_empty_weights():
        empty = make()
    loaded = accelerate.load_checkpoint_and_dispatch(
        empty,
        str(tmp_path),
        device_map={"0": "cpu", "1": "cpu", "2": "disk"},
        offload_folder=str(tmp_path / "offloaded"),
        offload_buffers=True,  # the states of maps are buffers
    ).eval()
    assert loaded[2].parametrizations.weight.original.device.type == "meta"
    torch.testing.assert_close(loaded(X), model(X))


@torch.no_grad()
def test_a_model_is_baked_before_it_is_offloaded() -> None:
    model = make().eval()
    expected = model(X)
    accelerate.cpu_offload(P.bake(model).model, execution_device=torch.device("cpu"))
    torch.testing.assert_close(model(X), expected)
