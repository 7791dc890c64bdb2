"""A map that counts its evaluations, and what functional calls of it are given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

FORWARD_MODE = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own

INPUT = torch.tensor([[1.0, -2.0, 0.5]])


class Counting(nn.Module):
    """Has no `right_inverse`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, X: Tensor) -> Tensor:
        self.calls += 1
        return X.exp()
