"""The layers that are compared, and what is done with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations as torchs

from paramdesc import parametrizations as ours
from paramdesc import register_parametrization
from tests.benchmarks.gpu.clocks import Run

__all__ = ["OURS", "TORCHS", "layer", "read_after_a_change", "read_and_back"]

Make = Callable[[nn.Module], object]


def by_map(make: Callable[[], nn.Module]) -> Make:
    return lambda module: register_parametrization(module, "weight", make())


def by_torch(name: str) -> Make:
    return lambda module: torchs.orthogonal(module, orthogonal_map=name)


OURS: dict[str, Make] = {
    "plain": lambda module: module,
    "cayley": by_map(lambda: ours.Orthogonal("cayley")),
    "matrix_exp": by_map(lambda: ours.Orthogonal("matrix_exp")),
    "householder": by_map(lambda: ours.Orthogonal("householder")),
    "polar": by_map(lambda: ours.Orthogonal("polar")),
    "SpectralNorm": by_map(ours.SpectralNorm),
    "spectral_norm": ours.spectral_norm,
    "WeightNorm": ours.weight_norm,
}
TORCHS: dict[str, Make] = {
    "plain": lambda module: module,
    "cayley": by_torch("cayley"),
    "matrix_exp": by_torch("matrix_exp"),
    "householder": by_torch("householder"),
    "spectral_norm": torchs.spectral_norm,
    "WeightNorm": torchs.weight_norm,
}
"""The same by torch, where it has it."""


def layer(make: Make, rows: int, columns: int, device: str) -> Any:
    """A layer with a map on its weight. Registering may take long on a device, for torch's maps."""
    torch.manual_seed(0)
    module: Any = nn.Linear(columns, rows, bias=False, device=device)
    make(module)
    return module


def originals(module: Any) -> list[Any]:
    return list(module.parameters())


def read_and_back(module: Any) -> Run:
    """Read the weight, and run the backward pass to the original."""
    gradient = torch.randn_like(module.weight)

    def run() -> None:
        for original in module.parameters():
            original.grad = None
        module.weight.backward(gradient)

    return run


def read_after_a_change(module: Any) -> Run:
    """The same, after a small change of the original, as in a training step."""
    back = read_and_back(module)
    changes = [1e-3 * torch.randn_like(original) for original in module.parameters()]

    def run() -> None:
        with torch.no_grad():
            for original, change in zip(module.parameters(), changes, strict=True):
                original.add_(change)
        back()

    return run
