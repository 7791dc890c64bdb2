"""Maps to a linear or affine subspace, through its orthogonal projection.

No `from __future__ import annotations`: `typing.get_type_hints` looks for their names in the public
module.
"""

from typing import ClassVar

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import epsilon

__all__ = ["LinearStructure"]


class LinearStructure(Parametrization):
    """A map whose values form a linear or affine subspace. Subclasses define `project`.

    `project(X)` is the point of the subspace that is nearest to `X` in the Frobenius norm. The rest
    follows: evaluation projects, assignment and registration keep a value in the subspace up to
    rounding and replace any other with the nearest one, or reject it with `strict`. A subclass may
    define a cheaper `forward` that keeps the values in the subspace as they are, and allow more
    `roundings` of the largest entry, as sums of many entries require.

    >>> class EqualRows(LinearStructure):
    ...     constraint = "a matrix of equal rows"
    ...     def project(self, X):
    ...         return X.mean(-2, keepdim=True).expand_as(X)
    >>> linear = register_parametrization(torch.nn.Linear(2, 2), "weight", EqualRows())
    >>> linear.weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> linear.weight.tolist()
    [[2.0, 3.0], [2.0, 3.0]]
    """

    roundings: ClassVar[float] = 4

    def project(self, X: Tensor) -> Tensor:
        """The value nearest to `X`, after a check of its shape."""
        raise NotImplementedError(f"{type(self).__name__} defines no project().")

    def forward(self, X: Tensor) -> Tensor:
        return self.project(X)

    def right_inverse(self, Y: Tensor) -> Tensor:
        nearest = self.project(Y)
        self.admit(Y)
        return nearest.contiguous()  # a view or an expanded tensor could not be trained by all

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest difference between an entry of `Y` and of the nearest value."""
        return largest_deviation(Y, self.project(Y))

    def tolerance(self, Y: Tensor) -> float:
        if not epsilon(Y):
            return 0.0
        scale = largest_entry(torch.where(Y.isfinite(), Y, 0)).item()
        return self.roundings * epsilon(Y) * scale


def largest_deviation(Y: Tensor, other: Tensor) -> Tensor:
    """The largest difference between corresponding entries; equal infinities do not differ."""
    if Y.dtype == torch.bool:
        Y, other = Y.int(), other.int()
    return largest_entry(torch.where(other == Y, 0, Y - other))
