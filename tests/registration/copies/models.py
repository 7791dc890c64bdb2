"""Models that are copied, and all the ways to copy them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc
from paramdesc.parametrizations import SpectralNorm, Symmetric
from tests.helpers import Double, Shift, Sum, linear, saved_and_loaded
from tests.registration.models import nested


def on_buffer() -> nn.BatchNorm1d:
    return paramdesc.register_parametrization(nn.BatchNorm1d(3).eval(), "running_mean", Double())


def with_function() -> nn.Linear:
    return paramdesc.register_parametrization(
        nn.Linear(3, 3), "bias", torch.sinh, right_inverse=torch.asinh
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "one original": linear,
    "map with a parameter": lambda: linear(Shift()),
    "several originals": lambda: linear(Sum()),
    "chain and nested": nested,
    "buffer": on_buffer,
    "function": with_function,
    "symmetric": lambda: linear(Symmetric()),
    "spectral norm": lambda: linear(SpectralNorm()),
    "inside a model": lambda: nn.Sequential(linear(), nn.ReLU(), nn.Sequential(linear(Sum()))),
}


def through_pickle(protocol: int) -> Callable[[Any], Any]:
    return lambda module: pickle.loads(pickle.dumps(module, protocol))


def through_cloudpickle(module: Any) -> Any:
    cloudpickle = pytest.importorskip("cloudpickle")
    return pickle.loads(cloudpickle.dumps(module))


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    **{f"pickle {i}": through_pickle(i) for i in range(2, pickle.HIGHEST_PROTOCOL + 1)},
    "torch.save": saved_and_loaded,
    "cloudpickle": through_cloudpickle,
}

INPUTS = torch.linspace(-1, 1, 12).view(4, 3)


def tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def change(module: nn.Module) -> None:
    with torch.no_grad():
        for tensor in tensors(module):
            tensor.add_(1)


SAME_MAPS: list[type[nn.Module]] = [Double, Shift, Sum, Symmetric]
