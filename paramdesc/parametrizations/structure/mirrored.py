"""Matrices that equal their image under a reflection in the diagonal."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.parametrizations.structure.linear_structure import LinearStructure, largest_deviation

__all__ = ["Mirrored"]


class Mirrored(LinearStructure):
    """A map to matrices with `Y = image(Y)`. Subclasses define `check`, `image` and `from_upper`.

    `image` is the transpose or the conjugate transpose, or the negative of it.
    """

    def check(self, X: Tensor) -> None:
        """Raise an error unless the tensor is a square matrix."""
        raise NotImplementedError

    def image(self, X: Tensor) -> Tensor:
        """What a matrix must equal."""
        raise NotImplementedError(f"{type(self).__name__} defines no image().")

    def from_upper(self, X: Tensor) -> Tensor:
        """The matrix of this kind with the entries of `X` above the diagonal."""
        raise NotImplementedError

    def forward(self, X: Tensor) -> Tensor:
        self.check(X)
        return self.from_upper(X)

    def project(self, X: Tensor) -> Tensor:
        self.check(X)
        if not (X.is_floating_point() or X.is_complex()):
            return self.from_upper(X)
        image = self.image(X)
        # the mean of halves cannot overflow, but halves may lose the last bit of tiny numbers
        return torch.where(image == X, X, X / 2 + image / 2)

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest difference between an entry of `Y` and of its image."""
        return largest_deviation(Y, self.image(Y))
