"""Weights of given length."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import smallest_normal, widened

__all__ = ["FrobeniusNorm", "as_dims", "scaled"]


class FrobeniusNorm(Parametrization):
    """`layer.weight` will have Frobenius norm `bound`: `Y = bound * X / ‖X‖`.

    The norm is the root of the sum of squares of all entries, or of those along `dim`: with
    `dim=(-2, -1)` each matrix of a batch has it, with `dim=-1` each row.

    Shapes `(*) -> (*)`, real and complex; the norms of half precision are taken in float32.
    A zero weight, one whose squares underflow included, stays as it is, with finite gradient.
    Cost: one pass for the norm, and one for the product.

    Assigning, and registering on a weight, keeps a weight of that norm as it is, and replaces
    any other by the nearest of that norm, which is `Y`.

    Args:
        bound: the norm, positive.
        dim: the dimensions along which it is taken; None for all of them.
        only_shrink: whether a weight of smaller norm is left as it is. Then `bound` is an
            upper bound.
        strict: whether to refuse a weight of another norm instead.

    Raises:
        ValueError: if `bound` is out of its range; with `strict`, if the norm of a weight that
            is assigned differs, with the difference.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", FrobeniusNorm(2.0))
    >>> round(linear.weight.norm().item(), 3)
    2.0
    """

    constraint = "of the norm asked for"

    def __init__(
        self,
        bound: float = 1.0,
        *,
        dim: int | tuple[int, ...] | None = None,
        only_shrink: bool = False,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be positive and finite. Got bound={bound}.")
        self.bound = float(bound)
        self.dim = as_dims(dim)
        self.only_shrink = only_shrink

    def forward(self, X: Tensor) -> Tensor:
        return scaled(X, self.bound, self.dim, self.only_shrink)

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        return Y

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest difference of a norm from `bound`; with `only_shrink`, the largest excess."""
        difference = norm_along(widened(Y), self.dim) - self.bound
        return largest_entry(difference.clamp(min=0) if self.only_shrink else difference)

    def tolerance(self, Y: Tensor) -> float:
        return self.bound * super().tolerance(Y)

    def extra_repr(self) -> str:
        shown = [f"bound={self.bound}"]
        if self.dim is not None:
            shown.append(f"dim={tuple(self.dim)}")
        shown += ["only_shrink=True"] * self.only_shrink + ["strict=True"] * self.strict
        return ", ".join(shown)


def as_dims(dim: int | tuple[int, ...] | None) -> list[int] | None:
    """`dim` as a list of dimensions; None for all of them."""
    if dim is None:
        return None
    dims = [dim] if isinstance(dim, int) else list(dim)
    if not dims:
        raise ValueError("dim must name a dimension. Got dim=(). Write dim=None for all of them.")
    return dims


def scaled(X: Tensor, bound: float, dim: list[int] | None, only_shrink: bool) -> Tensor:
    """`X`, with norm `bound` along `dim`; `only_shrink` leaves smaller norms as they are."""
    wide = widened(X)
    norm = norm_along(wide, dim)
    divisor = norm if bound == 1 else norm / bound
    if only_shrink:
        divisor = divisor.clamp(min=1)
    else:
        divisor = divisor.masked_fill(norm <= math.sqrt(smallest_normal(norm)), 1.0)
    result: Tensor = wide / divisor
    return result.to(X.dtype)


def norm_along(X: Tensor, dim: list[int] | None) -> Tensor:
    """The norms of `X` along `dim`, which keeps its dimensions, with size one."""
    norm: Tensor = torch.linalg.vector_norm(X, 2.0, dim, dim is not None)
    return norm
