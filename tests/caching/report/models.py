"""The model that reports are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import paramdesc as P
from tests.helpers import Double, Shift, linear

INPUT = torch.ones(2, 3)


class Scaled(nn.Module):
    """The original, times a buffer and a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.power = 1

    def forward(self, X: Tensor) -> Tensor:
        return X * self.get_buffer("scale") * self.power

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y.clone()


def model() -> Any:
    """A sequence whose first layer has two maps."""
    first = linear(Scaled())
    P.register_parametrization(first, "weight", Double())
    return nn.Sequential(first, nn.ReLU(), linear(Shift())).eval()
