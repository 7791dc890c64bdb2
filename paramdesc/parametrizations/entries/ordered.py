"""Weights that increase along their last axis."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions.transforms import SoftplusTransform
from torch.nn.functional import softplus

from paramdesc.chain.cuts import Cuts, cuts_across
from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import widened
from paramdesc.parametrizations.entries.interval import spacing
from paramdesc.torch_internals.mode import has_numbers

__all__ = ["Ordered", "nearest_increasing"]


class Ordered(Parametrization):
    """Make the rows of `layer.weight` increasing: `y_0 = x_0`, `y_i = y_{i-1} + softplus(x_i)`.

    The rows are strictly increasing: a difference that rounding would make zero is raised to
    `2 eps` of the dtype, relative to the range and the location of the row. This allows for
    `1 / (4 eps)` entries: 32 in bfloat16 and 256 in float16.

    Shapes `(*, n) -> (*, n)`, real; half precision is computed in float32. Cost: the softplus, the
    cumulative sum, and two more passes.

    Assignment and registration keep an increasing row up to rounding, and move equal entries apart
    as above. Any other row is sorted, so that a random weight keeps its distribution and learns as
    well as an ordered one. For small steps between entries, the derivative of the softplus is about
    as large as the step.

    Args:
        sort: whether to sort a row that decreases somewhere. Otherwise it is replaced by the
            nearest non-decreasing row in the Euclidean norm, its isotonic regression. That row has
            long runs of equal entries, whose steps have vanishing gradients.
        strict: whether to reject a row that decreases somewhere instead of replacing it.

    Raises:
        ValueError: if the weight has no axis; with `strict`, if an assigned row decreases
            somewhere; the error's `deviation` is the largest step down.

    Source: for sorting, V. Chernozhukov, I. Fernández-Val, A. Galichon, *Improving point and
    interval estimators of monotone functions by rearrangement*, Biometrika 96 (2009), proposition
    1: of all increasing rows, none is nearer to the unsorted row than to the sorted one. For the
    nearest value, R. E. Barlow et al., *Statistical inference under order restrictions*, Wiley
    1972, section 1.2, where adjacent violators are pooled.

    >>> linear = register_parametrization(torch.nn.Linear(9, 9), "weight", Ordered())
    >>> bool((linear.weight.diff(dim=-1) > 0).all())
    True
    """

    constraint = "increasing along its last axis"

    def __init__(self, *, sort: bool = True, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self.sort = sort

    def forward(self, X: Tensor) -> Tensor:
        check_axis(X)
        wide = widened(X)
        first, steps = wide[..., :1], softplus(wide[..., 1:])
        with torch.no_grad():  # the gradient of the softplus may go on
            steps.clamp_min_(least_step(first, steps, X))
        return torch.cumsum(torch.cat([first, steps], dim=-1), dim=-1).to(X.dtype)

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        return cuts_across([-1], dim, ndim)

    def right_inverse(self, Y: Tensor) -> Tensor:
        check_axis(Y)
        self.admit(Y)
        wide = widened(Y)
        # a row that increases is its own sorted row
        wide = wide.sort(dim=-1).values if self.sort else nearest_increasing(wide)
        first, steps = wide[..., :1], wide.diff(dim=-1)
        steps = steps.clamp(min=least_step(first, steps, Y))
        return torch.cat([first, SoftplusTransform().inv(steps)], dim=-1).to(Y.dtype)

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest step down along the last axis."""
        return largest_entry(Y.diff(dim=-1).clamp(max=0))

    def tolerance(self, Y: Tensor) -> float:
        return 0.0

    def extra_repr(self) -> str:
        return ", ".join(["sort=False"] * (not self.sort) + ["strict=True"] * self.strict)


def check_axis(X: Tensor) -> None:
    if X.ndim == 0:
        raise ValueError("Ordered needs rows, (*, n). Got a tensor without dimensions.")


def least_step(first: Tensor, steps: Tensor, X: Tensor) -> Tensor:
    """The smallest step that rounding to the dtype of `X` does not make zero."""
    eps, smallest = spacing(X)
    largest = first.abs() + steps.sum(-1, keepdim=True)
    return (2 * eps * largest).clamp(min=smallest)


def nearest_increasing(Y: Tensor) -> Tensor:
    """The rows nearest to those of `Y` that do not decrease.

    Where a row decreases, its blocks of equal entries are merged to their mean, until it does
    not: each round merges whole runs of falling blocks at once.
    """
    if not has_numbers(Y) or Y.numel() == 0:
        return Y
    value = Y
    rises = torch.ones_like(Y[..., 1:], dtype=torch.bool)
    while (value.diff(dim=-1) < 0).any():
        # a block goes on where it went on before, and where the next is lower
        starts = rises & (value.diff(dim=-1) >= 0)
        if starts.equal(rises):
            break
        rises = starts
        block = torch.nn.functional.pad(rises.cumsum(-1), (1, 0))
        sums = torch.zeros_like(Y).scatter_add_(-1, block, Y)
        sizes = torch.zeros_like(Y).scatter_add_(-1, block, torch.ones_like(Y))
        value = (sums / sizes.clamp(min=1)).gather(-1, block)
    return value
