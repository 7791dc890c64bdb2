"""Weights with mean zero."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.chain.cuts import Cuts, cuts_across
from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import epsilon, widened
from paramdesc.parametrizations.norms.length import as_dims

__all__ = ["Centered"]


class Centered(Parametrization):
    """Give the rows of `layer.weight` mean zero: `y = x - mean(x)`.

    The mean is taken along `dim`: `dim=-1` centers each row, `dim=-2` each column, and
    `dim=(1, 2, 3)` the weights of each output channel of a 2d convolution.

    Shapes `(*) -> (*)`, real and complex; the means of half precision are taken in float32.
    Cost: one pass for the means, and one for the difference.

    Assignment and registration keep a centered weight as it is and replace any other with the
    nearest one in the Frobenius norm, which is `Y`.

    Args:
        dim: the dimensions along which the mean is taken; None for all of them.
        strict: whether to reject a weight that is not centered instead of replacing it.

    Raises:
        ValueError: with `strict`, if an assigned weight is not centered; the error's `deviation` is
            the largest absolute mean.

    Source: L. Huang et al., *Centered weight normalization in accelerating training of deep
    neural networks*, ICCV 2017, section 3.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Centered())
    >>> bool((linear.weight.mean(dim=-1).abs() < 1e-6).all())
    True
    """

    constraint = "of mean zero"

    def __init__(self, dim: int | tuple[int, ...] | None = -1, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self.dim = as_dims(dim)

    def forward(self, X: Tensor) -> Tensor:
        wide = widened(X)
        if self.dim is None:  # dimensions left out do not export to ONNX
            return (wide - torch.mean(wide)).to(X.dtype)
        return (wide - torch.mean(wide, self.dim, True)).to(X.dtype)

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        return cuts_across(self.dim, dim, ndim)

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        return Y

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest absolute mean."""
        return largest_entry(torch.mean(widened(Y), self.dim, True))

    def tolerance(self, Y: Tensor) -> float:
        return 4 * epsilon(Y) * largest_entry(Y).item()

    def extra_repr(self) -> str:
        dim = None if self.dim is None else tuple(self.dim)
        return f"dim={dim}" + ", strict=True" * self.strict
