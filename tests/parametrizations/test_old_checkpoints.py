"""State_dicts of `torch.nn.utils.weight_norm` and `spectral_norm`, before parametrizations."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from paramdesc import remove_parametrizations
from paramdesc.parametrizations.functions.torch_functions import (
    orthogonal,
    spectral_norm,
    weight_norm,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Model(nn.Module):
    def __init__(self, apply: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.encoder = nn.Sequential(apply(nn.Linear(5, 4)), nn.ReLU())
        self.convolution = apply(nn.Conv1d(4, 3, 1))
        self.transposed = apply(nn.ConvTranspose1d(3, 2, 1))

    def forward(self, x: Any) -> Any:
        x = self.encoder(x).unsqueeze(-1)
        return self.transposed(self.convolution(x))


def old_model(function: Any, **options: Any) -> nn.Module:
    """A model with the older function, trained for a while."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = Model(lambda layer: function(layer, **options))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(5):
        model(torch.randn(3, 5)).square().sum().backward()
        optimizer.step()
    return model.eval()


def copies(model: nn.Module) -> list[nn.Module]:
    return [model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]


@pytest.mark.parametrize("dim", [0, 1, None])
def test_models_load_what_the_older_weight_norm_saved(dim: int | None) -> None:
    old = old_model(old_weight_norm, dim=dim)
    x = torch.randn(3, 5)
    for model in copies(Model(lambda layer: weight_norm(layer, dim=dim))):
        model.load_state_dict(old.state_dict(), strict=True)
        assert torch.allclose(model(x), old(x), rtol=0, atol=1e-6)


def test_models_load_what_the_older_spectral_norm_saved() -> None:
    old = old_model(old_spectral_norm)
    x = torch.randn(3, 5)
    for model in copies(Model(spectral_norm)):
        model.eval().load_state_dict(old.state_dict(), strict=True)
        assert torch.allclose(model(x), old(x), rtol=0, atol=1e-5)


def test_tensors_of_any_name_load() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        norm: Any = old_weight_norm(nn.GRUCell(3, 4), "weight_hh")
    old: Any = old_spectral_norm(nn.GRUCell(3, 4), "weight_hh")
    ours: Any = weight_norm(nn.GRUCell(3, 4), "weight_hh")
    ours.load_state_dict(norm.state_dict())
    norm(torch.zeros(1, 3))
    assert torch.allclose(ours.weight_hh, norm.weight_hh, atol=1e-6)
    for _ in range(20):
        old(torch.zeros(1, 3))
    old.eval()(torch.zeros(1, 3))
    ours = spectral_norm(nn.GRUCell(3, 4), "weight_hh").eval()
    ours.load_state_dict(old.state_dict())
    assert torch.allclose(ours.weight_hh, old.weight_hh, atol=1e-5)


@pytest.mark.parametrize(
    ("dim", "old", "new"),
    [(0, (4,), (4, 1)), (None, (1, 1), ()), (None, (1,), ()), (0, (4, 1), (4, 1))],
)
def test_lengths_of_other_shapes_load(
    dim: int | None, old: tuple[int, ...], new: tuple[int, ...]
) -> None:
    layer: Any = weight_norm(nn.Linear(5, 4, bias=False), dim=dim)
    g, v = torch.rand(old), torch.randn(4, 5)
    layer.load_state_dict({"weight_g": g, "weight_v": v})
    assert layer.parametrizations.weight.original0.shape == new
    norm = v.norm() if dim is None else v.norm(dim=1, keepdim=True)
    assert torch.allclose(layer.weight, g.reshape(new) * v / norm, atol=1e-6)


def test_lengths_that_do_not_fit_are_refused_by_torch_itself() -> None:
    layer: Any = weight_norm(nn.Linear(5, 4, bias=False))
    with pytest.raises(RuntimeError, match="size mismatch for parametrizations.weight.original0"):
        layer.load_state_dict({"weight_g": torch.ones(3, 1), "weight_v": torch.ones(4, 5)})


def test_the_oldest_spectral_norm_saved_the_weight_instead_of_v() -> None:
    old: Any = old_spectral_norm(nn.Linear(5, 4))
    for _ in range(200):
        old(torch.zeros(1, 5))
    state = dict(old.eval().state_dict())
    old(torch.zeros(1, 5))
    del state["weight_v"]
    state["weight"] = old.weight.detach()
    layer: Any = spectral_norm(nn.Linear(5, 4)).eval()
    layer.load_state_dict(state, strict=True)
    assert torch.allclose(layer.weight, old.weight, atol=1e-6)
    del state["weight"]
    layer.load_state_dict(state, strict=True)
    assert torch.allclose(layer.weight, old.weight, atol=1e-4)


def test_files_of_today_load_as_before() -> None:
    for function in (weight_norm, spectral_norm):
        layer, other = function(nn.Linear(5, 4)), function(nn.Linear(5, 4))
        layer.eval().load_state_dict(other.eval().state_dict(), strict=True)
        assert layer.weight.equal(other.weight)


def test_half_of_an_old_file_is_told_as_torch_tells_it() -> None:
    layer = weight_norm(nn.Linear(5, 4, bias=False))
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"weight_g"'):
        layer.load_state_dict({"weight_g": torch.ones(4, 1)})


def test_the_state_of_a_map_that_is_not_the_first_finds_its_place() -> None:
    layer: Any = spectral_norm(orthogonal(nn.Linear(4, 4, bias=False)), bound=0.5)
    u, v = torch.eye(4)[0], torch.eye(4)[0]
    state = {"weight_orig": torch.eye(4), "weight_u": u, "weight_v": v}
    layer.load_state_dict(state, strict=False)
    assert layer.parametrizations.weight[1]._u.equal(u)


def test_registering_again_leaves_one_hook() -> None:
    layer: Any = nn.Linear(4, 4)
    for _ in range(3):
        weight_norm(layer)
        remove_parametrizations(layer, "weight")
    assert len(layer._load_state_dict_pre_hooks) == 1
