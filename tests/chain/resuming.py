"""A training that can be saved and resumed, for each map with a warm start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from paramdesc import Parametrization, parametrizations, register_parametrization
from paramdesc.parametrizations import ConvolutionSpectralNorm, SpectralNorm, spectral_norm

__all__ = ["REGISTER", "WARM_MAPS", "Run", "norm_of"]

WARM_MAPS = {
    name
    for name, kind in vars(parametrizations).items()
    if isinstance(kind, type) and issubclass(kind, Parametrization) and kind.warm_start
}


class Halved(nn.Module):
    """Half of what the map inside of it gives of twice its input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = SpectralNorm()

    def forward(self, X: Tensor) -> Tensor:
        result: Tensor = self.inner(2 * X) / 2
        return result

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y


def convolution() -> nn.Module:
    layer = nn.Conv1d(4, 4, 3, padding=1)
    return register_parametrization(layer, "weight", ConvolutionSpectralNorm.for_module(layer, 4))


def with_map(parametrization: nn.Module) -> nn.Module:
    return register_parametrization(nn.Linear(16, 16), "weight", parametrization)


REGISTER: dict[str, Callable[[], nn.Module]] = {
    "spectral_norm": lambda: spectral_norm(nn.Linear(16, 16)),
    "SpectralNorm": lambda: with_map(SpectralNorm()),
    "SpectralNorm with a tolerance": lambda: with_map(SpectralNorm(tolerance=0.01)),
    "SpectralNorm inside of another map": lambda: with_map(Halved()),
    "ConvolutionSpectralNorm": convolution,
}
"""Layers of 16 numbers each."""


class Shaped(nn.Module):
    """A layer between views as it takes them."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.shape = (4, 4) if isinstance(layer, nn.Conv1d) else (16,)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x.view(-1, *self.shape)).flatten(1)
        return result


class Run:
    """Two layers in training. A run of the same name and seed begins with the same numbers."""

    def __init__(self, name: str, seed: int = 0, optimizer: str = "Adam") -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = [Shaped(REGISTER[name]()) for _ in range(2)]
            self.model: Any = nn.Sequential(layers[0], nn.ReLU(), layers[1])
        kind = getattr(torch.optim, optimizer)
        self.optimizer = kind(self.model.parameters(), lr=0.05)

    def loss(self, number: int) -> Tensor:
        """A forward pass, in the mode that the model is in."""
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(number))
        difference: Tensor = self.model(x) - 3 * x.roll(1, 1)
        return difference.square().mean()

    def train(self, numbers: Iterable[int]) -> list[float]:
        return [self.step(number) for number in numbers]

    def step(self, number: int) -> float:
        loss = self.loss(number)
        self.finish(loss)
        return loss.item()

    def finish(self, loss: Any) -> None:
        """The step after a forward pass."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        """All that a state_dict holds, and the evaluated weights."""
        found = {name: value.clone() for name, value in self.model.state_dict().items()}
        found |= {f"value {i}": self.model[i].layer.weight.detach() for i in (0, 2)}
        return found


def norm_of(model: Any, index: int = 0) -> float:
    """The norm of the linear map that one of the layers is."""
    layer = model[index]
    with torch.no_grad():
        matrix = layer(torch.eye(16)) - layer(torch.zeros(1, 16))
    return float(torch.linalg.matrix_norm(matrix, 2))
