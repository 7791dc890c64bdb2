"""Weights that are non-negative and sum to one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints, transform_to

from paramdesc.chain.cuts import Cuts, cuts_across
from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import epsilon, smallest_normal, widened
from paramdesc.parametrizations.entries.interval import check_margin

__all__ = ["Simplex", "nearest_on_simplex", "placed_on_simplex"]


class Simplex(Parametrization):
    """Make the rows of `layer.weight` non-negative with sum one: `softmax(X)`.

    Each slice along `dim` is a point of the probability simplex. Its entries are positive in exact
    arithmetic, but may underflow to zero.

    Shapes `(*) -> (*)`, with at least one dimension, real; half precision is computed in float32.
    Cost: the softmax.

    Assignment and registration keep a slice on the simplex as it is, except that zeros become the
    smallest normal number, whose gradient is nearly zero. Any other slice is replaced by the
    nearest point of the simplex, moved by the fraction `margin` of the way towards the center,
    where all entries have useful gradients.

    Args:
        dim: the dimension that sums to one.
        margin: how far from the faces of the simplex to place an assigned slice that is outside; 0
            for the nearest point.
        strict: whether to reject such slices instead of replacing them.

    Raises:
        ValueError: if `margin` is out of its range; with `strict`, if an assigned slice is not on
            the simplex; the error's `deviation` is the largest difference of a sum from one, or the
            size of the most negative entry if that is larger.

    Source: `torch.distributions.transform_to(constraints.simplex)`; the nearest point:
    J. Duchi et al., *Efficient projections onto the l1-ball for learning in high dimensions*,
    ICML 2008, figure 1.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Simplex())
    >>> torch.allclose(linear.weight.sum(dim=-1), torch.ones(3))
    True
    """

    constraint = "on the simplex"

    def __init__(self, dim: int = -1, *, margin: float = 1e-3, strict: bool = False) -> None:
        super().__init__(strict=strict)
        check_margin(margin)
        self.dim = dim
        self.margin = margin

    def forward(self, X: Tensor) -> Tensor:
        return torch.softmax(widened(X), self.dim).to(X.dtype)

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        return cuts_across([self.dim], dim, ndim)

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        point = placed_on_simplex(widened(Y).movedim(self.dim, -1), epsilon(Y), self.margin)
        X: Tensor = transform_to(constraints.simplex).inv(point)
        return X.movedim(-1, self.dim).to(Y.dtype)

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest difference of a sum from one, or the most negative entry if larger."""
        wide = widened(Y)
        negative = largest_entry(wide.clamp(max=0))
        return torch.maximum(largest_entry(wide.sum(self.dim) - 1), negative)

    def extra_repr(self) -> str:
        return f"dim={self.dim}" + ", strict=True" * self.strict


def placed_on_simplex(Y: Tensor, eps: float, margin: float) -> Tensor:
    """`Y` where it is on the simplex, with no zeros, else the nearest point, moved inside."""
    size = max(Y.shape[-1], 1)
    distance = (Y.sum(-1, keepdim=True) - 1).abs()
    is_inside = (distance <= 4 * eps * size**0.5) & (Y >= 0).all(-1, keepdim=True)
    nearest = nearest_on_simplex(Y)
    centered = nearest + margin * (1 / size - nearest)
    return torch.where(is_inside, Y, centered).clamp(min=smallest_normal(Y))


def nearest_on_simplex(Y: Tensor) -> Tensor:
    """The points of the simplex that the last axis of `Y` is nearest to: `max(y - t, 0)`."""
    if Y.shape[-1] == 0:
        return Y
    falling = Y.sort(-1, descending=True).values
    counts = torch.arange(1, Y.shape[-1] + 1, dtype=Y.dtype, device=Y.device)
    thresholds = (falling.cumsum(-1) - 1) / counts
    last = (falling > thresholds).sum(-1, keepdim=True) - 1  # of the entries that stay positive
    return (Y - thresholds.gather(-1, last.clamp(min=0))).clamp(min=0)
