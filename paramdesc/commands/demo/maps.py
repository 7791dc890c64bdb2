"""The orthogonal map of the demo, which tells how often it was evaluated."""

from __future__ import annotations

from torch import Tensor

from paramdesc.parametrizations import Orthogonal

__all__ = ["CountedOrthogonal"]


class CountedOrthogonal(Orthogonal):
    """`cell.weight_hh` will be orthogonal. `evaluations` counts the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluations = 0

    def forward(self, X: Tensor) -> Tensor:
        self.evaluations += 1
        return super().forward(X)
