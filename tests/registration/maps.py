"""Maps of several tests of registration."""

from __future__ import annotations

from torch import Tensor, nn


class Product(nn.Module):
    """Several originals, for it is given as the product of two."""

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        return X * Y

    def right_inverse(self, X: Tensor) -> tuple[Tensor, Tensor]:
        return X.abs().sqrt(), X.sign() * X.abs().sqrt()
