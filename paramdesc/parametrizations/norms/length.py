"""The norm of tensors along some dimensions, and maps that set or bound it."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import all_above, smallest_normal, widened
from paramdesc.linalg.scaled import AT_MOST, EXACT, scaled_to_norm

__all__ = ["Length", "as_dims"]


class Length(Parametrization):
    """A map that scales a tensor to norm `bound` along `dim`. Subclasses define `forward`.

    Zero vectors, including those whose squares underflow, stay as they are.
    """

    def __init__(
        self,
        bound: float = 1.0,
        *,
        dim: int | tuple[int, ...] | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be positive and finite. Got bound={bound}.")
        self.bound = float(bound)
        self.dim = as_dims(dim)

    def scaled(self, X: Tensor, only_shrink: bool) -> Tensor:
        """`X` with norm `bound`; `only_shrink` leaves smaller norms as they are."""
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            value = None
            if not torch.compiler.is_compiling():
                kind = AT_MOST if only_shrink else EXACT
                formula = partial(self.formula, only_shrink=only_shrink)
                value = scaled_to_norm(formula, X, self.dim, self.bound, kind)
            if value is not None:
                return value
        return self.formula(X, only_shrink)

    def formula(self, X: Tensor, only_shrink: bool) -> Tensor:
        """The value, in operations whose derivatives of any order are right."""
        wide = widened(X)
        norm = norm_along(wide, self.dim)
        least = math.sqrt(smallest_normal(norm))
        if not only_shrink and all_above(norm, least):  # with fewer operations
            return (wide * (self.bound / norm)).to(X.dtype)
        divisor = norm if self.bound == 1 else norm / self.bound
        short = norm <= least
        divisor = divisor.clamp(min=1) if only_shrink else divisor.masked_fill(short, 1.0)
        result: Tensor = wide / divisor
        return result.to(X.dtype)

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        return Y

    def largest_error(self, Y: Tensor, only_shrink: bool) -> Tensor:
        """The largest difference of a norm from `bound`; with `only_shrink`, the largest excess."""
        difference = norm_along(widened(Y), self.dim) - self.bound
        return largest_entry(difference.clamp(min=0) if only_shrink else difference)

    def tolerance(self, Y: Tensor) -> float:
        return self.bound * super().tolerance(Y)


def as_dims(dim: int | tuple[int, ...] | None) -> list[int] | None:
    """`dim` as a list of dimensions; None for all of them."""
    if dim is None:
        return None
    dims = [dim] if isinstance(dim, int) else list(dim)
    if not dims:
        raise ValueError("dim must name a dimension. Got dim=(). Write dim=None for all of them.")
    return dims


def norm_along(X: Tensor, dim: list[int] | None) -> Tensor:
    """The norms of `X` along `dim`, whose dimensions are kept with size one."""
    norm: Tensor = torch.linalg.vector_norm(X, 2.0, dim, dim is not None)
    return norm
