"""The network: a recurrent cell that sees one pixel at a time, and a read-out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from paramdesc.commands.demo.maps import CountedOrthogonal
from paramdesc.parametrizations import SpectralNorm
from paramdesc.registration.decorator import parametrized

__all__ = ["N_POWER_ITERATIONS", "BoundedReadout", "Cell", "OrthogonalCell", "Reader", "Readout"]

SIZE = 64
CLASSES = 10
N_POWER_ITERATIONS = 20


class Cell(nn.RNNCell):
    """A recurrent cell whose kernel starts as rotations by up to a right angle."""

    def __init__(self) -> None:
        super().__init__(1, SIZE, nonlinearity="relu")

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.bias_ih.zero_()
        self.bias_hh.zero_()
        angles = torch.rand(SIZE // 2) * math.pi / 2
        cosines, sines = angles.cos().repeat_interleave(2), angles.sin().repeat_interleave(2)
        sines[1::2] = 0  # each pair of units is turned, none with the next pair
        self.weight_hh.copy_(cosines.diag() + sines[:-1].diag(-1) - sines[:-1].diag(1))


class Readout(nn.Linear):
    """Scores of the ten digits. The weight starts with spectral norm one."""

    def __init__(self) -> None:
        super().__init__(SIZE, CLASSES)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.weight.div_(torch.linalg.matrix_norm(self.weight, 2))


@parametrized("weight_hh", CountedOrthogonal())
class OrthogonalCell(Cell):
    """A cell with an orthogonal kernel."""


@parametrized("weight", SpectralNorm(n_power_iterations=N_POWER_ITERATIONS))
class BoundedReadout(Readout):
    """A read-out of spectral norm one."""


class Reader(nn.Module):
    """Reads images pixel by pixel: `(m, p) -> (m, 10)`."""

    def __init__(self, cell: nn.RNNCell, readout: nn.Linear) -> None:
        super().__init__()
        self.cell = cell
        self.readout = readout

    def forward(self, images: Tensor) -> Tensor:
        state = images.new_zeros(len(images), SIZE)
        for pixel in images.unsqueeze(-1).unbind(dim=1):
            state = self.cell(pixel, state)
        scores: Tensor = self.readout(state)
        return scores
