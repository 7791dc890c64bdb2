"""The network: a recurrent cell that sees one pixel at a time, and a readout."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Cell", "HandWritten", "Reader", "Readout"]

SIZE = 64
CLASSES = 10


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
        sines[1::2] = 0  # pairs of units are rotated, independently of each other
        self.weight_hh.copy_(cosines.diag() + sines[:-1].diag(-1) - sines[:-1].diag(1))


class Readout(nn.Linear):
    """The scores of the ten digits. The weight starts with spectral norm one."""

    def __init__(self) -> None:
        super().__init__(SIZE, CLASSES)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.weight.div_(torch.linalg.matrix_norm(self.weight, 2))


class Reader(nn.Module):
    """Reads images pixel by pixel: `(m, p) -> (m, 10)`."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = Cell()
        self.readout = Readout()

    def forward(self, images: Tensor) -> Tensor:
        state = images.new_zeros(len(images), self.cell.hidden_size)
        for pixel in images.unsqueeze(-1).unbind(dim=1):
            state = self.cell(pixel, state)
        return self.readout(state)  # type: ignore[no-any-return]


class HandWritten(Reader):
    """The same constraints written by hand, for this model alone: what no engine can beat.

    Each call computes both weights once and puts them where the layers look for them. The kernel
    is `base (I + A / 2)⁻¹ (I - A / 2)` with a skew-symmetric `A`.
    """

    base: Tensor
    left: Tensor
    right: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("base", self.cell.weight_hh.detach().clone())
        left, _, right = torch.linalg.svd(self.readout.weight.detach(), full_matrices=False)
        self.register_buffer("left", left[:, 0])
        self.register_buffer("right", right[0])
        self.cell.register_parameter("weight_hh_raw", nn.Parameter(torch.zeros(SIZE, SIZE)))
        self.readout.register_parameter("weight_raw", nn.Parameter(self.readout.weight.detach()))
        del self.cell.weight_hh, self.readout.weight

    def forward(self, images: Tensor) -> Tensor:
        self.cell.weight_hh = self.make_kernel()
        self.readout.weight = self.make_readout()
        return super().forward(images)

    def make_kernel(self) -> Tensor:
        raw = self.cell.get_parameter("weight_hh_raw")
        half, one = (raw - raw.T) / 4, torch.eye(SIZE)
        kernel: Tensor = self.base @ torch.linalg.solve(one + half, one - half)
        return kernel

    def make_readout(self) -> Tensor:
        weight = self.readout.get_parameter("weight_raw")
        if self.training:
            with torch.no_grad():  # one step of the power iteration
                self.left = nn.functional.normalize(weight @ self.right, dim=0)
                self.right = nn.functional.normalize(weight.T @ self.left, dim=0)
        return weight / (self.left @ weight @ self.right)
