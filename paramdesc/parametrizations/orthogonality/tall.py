"""The base class of maps with a base point that are defined for tall matrices."""

import math

import torch
from torch import Tensor

from paramdesc.linalg.orthogonality import non_orthonormality, renewed
from paramdesc.linalg.precision import epsilon, widened
from paramdesc.parametrizations.base_point import BasePoint

__all__ = ["TallMatrices", "base_like"]


class TallMatrices(BasePoint):
    """A map that treats a wide matrix as the conjugate transpose of a tall one.

    Subclasses define `tall`, `check` and `start`. By default the constraint is that the columns of
    a value are orthonormal, or its rows if there are fewer rows.
    """

    batching = "leading"

    def tall(self, X: Tensor, base: Tensor | None) -> Tensor:
        """The value for an original with at least as many rows as columns."""
        raise NotImplementedError

    def forward(self, X: Tensor) -> Tensor:
        self.check(X)
        return self.evaluate(X)

    def evaluate(self, X: Tensor) -> Tensor:
        """The value for `X`, a matrix of any shape."""
        base = self.base
        if X.shape[-2] < X.shape[-1]:
            wide = self.tall(widened(X).mH, None if base is None else base.mH)
            return wide.mH.resolve_conj().to(X.dtype)
        return self.tall(widened(X), base).to(X.dtype)

    def recenter(self, X: Tensor) -> tuple[Tensor, ...]:
        """Zero, and the value as the base point."""
        Y = self.forward(widened(X))
        is_wide = Y.shape[-2] < Y.shape[-1]
        return torch.zeros_like(X), renewed(Y.mH).mH if is_wide else renewed(Y)

    def deviation(self, Y: Tensor) -> Tensor:
        """The Frobenius norm of `Yᴴ Y - I`, or of `Y Yᴴ - I` if `Y` has fewer rows."""
        return non_orthonormality(Y)

    def tolerance(self, Y: Tensor) -> float:
        return 20 * epsilon(Y) * math.sqrt(min(Y.shape[-2:]))


def base_like(X: Tensor, base: Tensor | None) -> Tensor:
    """`base` in the dtype of `X`, or the identity if there is none."""
    if base is None:
        return torch.eye(X.shape[-2], X.shape[-1], dtype=X.dtype, device=X.device).expand_as(X)
    return base.clone() if base.dtype == X.dtype else base.to(X.dtype)
