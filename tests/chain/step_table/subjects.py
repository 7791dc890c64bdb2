"""The layers that are trained, each the linear map from 32 numbers to 32 numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_parametrizations

from paramdesc import register_parametrization
from paramdesc.parametrizations import ConvolutionSpectralNorm, SpectralNorm, spectral_norm
from tests.helpers import chain_of

__all__ = ["SPECTRAL_NORM", "SUBJECTS", "TORCH", "Subject"]


@dataclass(frozen=True)
class Subject:
    """A spectral norm, by the name that its column has."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (32,)

    def build(self) -> tuple[nn.Module, Tensor]:
        """A model of one layer, and the state of its map."""
        layer = self.make()
        chain = chain_of(layer)
        return nn.Sequential(layer), chain[0]._u

    def batch(self) -> tuple[Tensor, Tensor]:
        """Inputs, and targets that a matrix makes of them: of its norm, one direction only."""
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(64, 32, generator=generator)
        left, right = torch.linalg.qr(torch.randn(2, 32, 32, generator=generator)).Q
        values = torch.cat([torch.tensor([2.0]), 0.5 * 0.9 ** torch.arange(31)])
        teacher = left * values @ right
        return inputs.view(64, *self.shape), (inputs @ teacher).view(64, *self.shape)

    def loss(self, model: nn.Module) -> Callable[[], Any]:
        """What is minimized."""
        inputs, targets = self.batch()

        def loss() -> Tensor:
            difference: Tensor = model(inputs) - targets
            return difference.square().mean()

        return loss

    def norm(self, model: Any) -> float:
        """The norm of the linear map that the model is, in evaluation mode."""
        model.eval()
        with torch.no_grad():
            matrix = model(torch.eye(32).view(32, *self.shape)).reshape(32, 32)
        model.train()
        return float(torch.linalg.matrix_norm(matrix, 2))


def convolution() -> nn.Module:
    layer = nn.Conv1d(4, 4, 3, padding=1, bias=False)
    return register_parametrization(layer, "weight", ConvolutionSpectralNorm.for_module(layer, 8))


TORCH = Subject(
    "torch", lambda: torch_parametrizations.spectral_norm(nn.Linear(32, 32, bias=False))
)
SPECTRAL_NORM = Subject(
    "`SpectralNorm`",
    lambda: register_parametrization(nn.Linear(32, 32, bias=False), "weight", SpectralNorm()),
)
SUBJECTS = (
    TORCH,
    Subject("`spectral_norm`", lambda: spectral_norm(nn.Linear(32, 32, bias=False))),
    SPECTRAL_NORM,
    Subject("`ConvolutionSpectralNorm`", convolution, (4, 8)),
)
