"""The layouts of checkpoints are recognized, and values computed from them, as torch has them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import paramdesc as P
from paramdesc.errors import LayoutError
from paramdesc.models.layouts import Stored, find_stored, keys_of, plain_value
from paramdesc.parametrizations import Skew, SpectralNorm, WeightNorm

OLD: dict[str, Callable[[nn.Module], Any]] = {
    "weight_g": weight_norm,
    "weight_g, whole": lambda layer: weight_norm(layer, dim=None),  # type: ignore[arg-type]
    "spectral_norm": spectral_norm,
    "pruned": lambda layer: prune.random_unstructured(layer, "weight", 0.5),  # type: ignore[no-untyped-call]
}
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 3), (1, 5)),
    "convolution": (lambda: nn.Conv2d(2, 3, 3), (1, 2, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose1d(2, 4, 3), (1, 2, 4)),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", OLD)
def test_hooks_of_torch(name: str, layer: str) -> None:
    make, shape = LAYERS[layer]
    module = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are deprecated
        OLD[name](module)
    module.eval()(torch.ones(shape))
    check(module, module.weight, name.partition(",")[0])


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("function", ["weight_norm", "spectral_norm"])
def test_parametrizations_of_torch(function: str, layer: str) -> None:
    module = LAYERS[layer][0]()
    getattr(parametrizations, function)(module)
    module.eval()
    check(module, module.weight, "torch")


@pytest.mark.parametrize("make", [WeightNorm, SpectralNorm])
def test_maps_of_this_library(make: Callable[[], nn.Module]) -> None:
    module = P.register_parametrization(nn.Linear(5, 3), "weight", make()).eval()
    check(module, module.weight, "torch")


def check(module: nn.Module, value: Any, layout: str) -> None:
    checkpoint = nn.ModuleDict({"layer": module}).state_dict()
    found = {stored.path: stored for stored in find_stored(checkpoint)}
    assert set(found) == {"layer.weight", "layer.bias"}
    stored = found["layer.weight"]
    assert stored.layout == layout
    assert keys_of(stored.path, layout, stored.keys) == stored.keys
    tensors = {role: checkpoint[key] for role, key in stored.keys.items()}
    torch.testing.assert_close(plain_value(stored, tensors), value.detach())
    assert plain_value(found["layer.bias"], {"value": checkpoint["layer.bias"]}) is not None


def test_a_value_that_needs_its_map_is_refused() -> None:
    module = P.register_parametrization(nn.Linear(3, 3), "weight", Skew())
    (stored, _) = sorted(find_stored(module.state_dict()), reverse=True)
    tensors: dict[str, Tensor] = {"original": torch.ones(3, 3)}
    with pytest.raises(LayoutError, match=r"'parametrizations.weight.original'.*plain_state_dict"):
        plain_value(stored, tensors)


def test_factors_of_a_matrix_of_rank_one_are_no_weight_norm() -> None:
    roles = {"original0": torch.ones(3, 1), "original1": torch.ones(1, 3)}
    keys = keys_of("weight", "torch", roles)
    with pytest.raises(LayoutError):
        plain_value(Stored("weight", "torch", keys), roles)


def test_names_that_only_look_like_a_layout_are_plain() -> None:
    keys = ["scale_g", "block.weight_v", "a.weight", "a.weight_g", "a.weight_v"]
    assert [(stored.path, stored.layout) for stored in find_stored(keys)] == [
        (key, "plain") for key in keys
    ]
