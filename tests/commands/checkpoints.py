"""Models in each layout, and their files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

__all__ = ["make_model", "save", "values_of"]

Functions = dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]]
FUNCTIONS: Functions = {
    "torch": (parametrizations.weight_norm, parametrizations.spectral_norm),
    "weight_g": (weight_norm, spectral_norm),
    "plain": (lambda layer: layer, lambda layer: layer),
}


def make_model(layout: str) -> nn.ModuleDict:
    """A model with a weight norm, a spectral norm, a transposed one, buffers and a tied layer."""
    torch.manual_seed(0)
    weight, spectral = FUNCTIONS[layout]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's older functions are deprecated
        model = nn.ModuleDict(
            {
                "convolution": weight(nn.Conv1d(4, 6, 3)),
                "linear": spectral(nn.Linear(5, 4)),
                "transposed": spectral(nn.ConvTranspose1d(2, 4, 3)),
                "norm": nn.BatchNorm1d(3),
                "embedding": nn.Embedding(7, 3),
                "head": nn.Linear(3, 7, bias=False),
            }
        )
    model["head"].weight = model["embedding"].weight
    # the older functions compute their weights when they are called
    for name, shape in {
        "convolution": (1, 4, 5),
        "linear": (1, 5),
        "transposed": (1, 2, 3),
    }.items():
        model[name](torch.ones(shape))
    return model.eval()


def values_of(model: nn.Module) -> dict[str, Tensor]:
    """The weight of each layer, as it is used."""
    for name, shape in {
        "convolution": (1, 4, 5),
        "linear": (1, 5),
        "transposed": (1, 2, 3),
    }.items():
        model.get_submodule(name)(torch.ones(shape))
    return {
        name: layer.weight.detach().clone()
        for name, layer in model.named_children()
        if isinstance(layer.weight, Tensor)
    }


def save(state_dict: Any, path: Path) -> Path:
    """Save a state_dict in the format that the name of the file says."""
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({key: value.clone() for key, value in state_dict.items()}, path)
    else:
        torch.save(state_dict, path)
    return path
