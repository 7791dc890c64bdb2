"""Convolutions of Lipschitz networks, here, in orthogonium and in deel-torchlip."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import paramdesc
from paramdesc.parametrizations import (
    ConvolutionSpectralNorm,
    kernel_spectral_norm,
    lipschitz_rescaled,
    orthogonal_convolution,
)
from tests.benchmarks.table import Goal, Table, main
from tests.benchmarks.timing import Clock, clocked, in_turns

__all__ = ["tables"]

SIZE = 8
ORTHOGONAL = "OrthogonalConvolution"
ADAPTIVE = "orthogonium, AdaptiveOrthoConv2d"
RESCALED = "LipschitzRescaled"
AOL = "orthogonium, AOLConv2D"
EXACT = "ConvolutionSpectralNorm"
BY_SIZE = "kernel_spectral_norm"
TORCHLIP = "torchlip, SpectralConv2d"
PAIRS = ((ORTHOGONAL, ADAPTIVE), (RESCALED, AOL), (EXACT, TORCHLIP), (BY_SIZE, TORCHLIP))


def tables(quick: bool) -> Iterator[Table]:
    for channels in (4,) if quick else (16, 64, 128):
        yield convolutions(channels, quick)


def plain(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular", bias=False)


def spectral(layer: nn.Conv2d) -> nn.Module:
    found = ConvolutionSpectralNorm.for_module(layer, SIZE)
    return paramdesc.register_parametrization(layer, "weight", found)


OURS: dict[str, Callable[[nn.Conv2d], nn.Module]] = {
    ORTHOGONAL: orthogonal_convolution,
    RESCALED: lipschitz_rescaled,
    EXACT: spectral,
    BY_SIZE: kernel_spectral_norm,
}


def layers(channels: int) -> dict[str, Any]:
    """The layers to compare; those of the peers that are installed. All start from orthogonal."""
    torch.manual_seed(0)
    kernel = orthogonal_convolution(plain(channels)).weight.detach()
    found: dict[str, Any] = {}
    for name, register in OURS.items():
        layer = plain(channels)
        layer.weight.data.copy_(kernel)
        found[name] = register(layer)
    theirs: dict[str, Any] = {"padding": 1, "padding_mode": "circular", "bias": False}
    for name, module, cls in (
        (ADAPTIVE, "orthogonium.layers.conv.AOC", "AdaptiveOrthoConv2d"),
        (AOL, "orthogonium.layers.conv.AOL", "AOLConv2D"),
        (TORCHLIP, "deel.torchlip", "SpectralConv2d"),
    ):
        with contextlib.suppress(ModuleNotFoundError):
            make = getattr(importlib.import_module(module), cls)
            found[name] = make(channels, channels, 3, **theirs)
    return found


def read(layer: Any, gradient: Tensor) -> Clock:
    def forward_and_backward() -> None:
        layer.zero_grad()
        layer.weight.backward(gradient)

    return clocked(forward_and_backward)


def singular_values(layer: Any) -> Tensor:
    """Those of the layer as a map of images, without borders: by a Fourier transform."""
    with torch.no_grad():
        waves = torch.fft.fft2(layer.weight.double(), s=(SIZE, SIZE))
    values: Tensor = torch.linalg.svdvals(waves.permute(2, 3, 0, 1))
    return values


def convolutions(channels: int, quick: bool) -> Table:
    compared = layers(channels)
    gradient = torch.randn(channels, channels, 3, 3)
    clocks = {name: read(layer, gradient) for name, layer in compared.items()}
    series = in_turns(clocks, 1 if quick else 25)
    values = {name: singular_values(layer) for name, layer in compared.items()}
    peers = {ours: theirs for ours, theirs in PAIRS if theirs in compared}
    return Table(
        f"3 x 3 convolutions of Lipschitz networks, {channels} channels",
        "Reading the weight and the backward pass; and the singular values of the layer as a map "
        "of images with circular padding, before training. Ours start from an orthogonal kernel, "
        "the peers' from what they initialize to be orthogonal.",
        ("milliseconds", "times the peer", "largest", "smallest"),
        {
            name: (
                series.median(name) * 1e3,
                series.ratio(name, peers[name]) if name in peers else None,
                values[name].max().item(),
                values[name].min().clamp_min(1e-12).item(),
            )
            for name in compared
        },
        [
            Goal(f"the time of {ours}, in that of {theirs},", 1, series.ratio(ours, theirs))
            for ours, theirs in peers.items()
        ],
    )


if __name__ == "__main__":
    main(tables, __doc__)
