"""Weights between two bounds.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
"""

import torch
from torch import Tensor
from torch.distributions import constraints, transform_to
from torch.nn.functional import hardtanh_

from paramdesc.chain.cuts import Cuts, cuts_across
from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import widened
from paramdesc.torch_internals.mode import has_numbers

__all__ = ["Interval", "UnitInterval", "above", "largest_below", "least_above"]


class Interval(Parametrization):
    """Keep the entries of `layer.weight` between `low` and `high`.

    The value is `low + (high - low) * sigmoid(X)`. The bounds are strict: where rounding would give
    a bound, the value is the nearest number inside, which differs by a relative `eps` of the dtype,
    or is the smallest normal number if the bound is zero.

    Shapes `(*) -> (*)`, real; half precision is computed in float32. Cost: the sigmoid and two more
    passes.

    Assignment and registration keep the entries between the bounds as they are. Near the bounds the
    sigmoid is flat and gradients vanish, so entries on or outside a bound are placed at the
    distance `margin * (high - low)` inside it.

    Args:
        low: the lower bound: a number, or a tensor that broadcasts to the weight and is saved and
            moved with the map.
        high: the upper bound, likewise.
        margin: how far inside to place assigned entries that are out of bounds, relative to the
            interval; 0 for the nearest number inside.
        strict: whether to reject such entries instead of replacing them.

    Raises:
        ValueError: if the bounds are not finite or not in order, or `margin` is out of its range;
            with `strict`, if an assigned entry is not between the bounds; the error's `deviation`
            is the largest distance from the interval.

    Source: `torch.distributions.transform_to(constraints.interval(low, high))`.

    >>> linear = register_parametrization(torch.nn.Linear(9, 9), "weight", Interval(-0.1, 0.1))
    >>> bool((linear.weight.abs() < 0.1).all())
    True
    """

    constraint = "between the bounds"

    def __init__(
        self,
        low: float | Tensor = 0.0,
        high: float | Tensor = 1.0,
        *,
        margin: float = 1e-3,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        device = next((x.device for x in (low, high) if isinstance(x, Tensor)), "cpu")
        low_tensor = torch.as_tensor(low, device=device)
        high_tensor = torch.as_tensor(high, device=device)
        difference = high_tensor - low_tensor
        in_order = torch.isfinite(difference) & (difference > 0)
        if has_numbers(in_order) and not in_order.all():
            raise ValueError(
                f"the bounds must be finite, with low < high. Got low={low}, high={high}. For a "
                "single bound, write FromDistributions(constraints.greater_than(low)), or "
                "less_than."
            )
        check_margin(margin)
        self.margin = margin
        if isinstance(low, Tensor) or isinstance(high, Tensor):
            like = low_tensor if isinstance(low, Tensor) else high_tensor
            self.register_buffer("low", low_tensor.to(like).clone())
            self.register_buffer("high", high_tensor.to(like).clone())
        else:
            self.low, self.high = float(low), float(high)

    def forward(self, X: Tensor) -> Tensor:
        Y = torch.sigmoid(widened(X)) * (self.high - self.low)
        Y = Y.add_(self.low).to(X.dtype)
        with torch.no_grad():  # the gradient of the sigmoid may go on through the bounds
            if isinstance(self.low, Tensor):
                Y.clamp_min_(above_each(self.low, X)).clamp_max_(below_each(self.high, X))
            else:
                hardtanh_(Y, above(self.low, X), below(self.high, X))
        return Y

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        is_tensor = isinstance(self.low, Tensor)  # of any shape that broadcasts
        return cuts_across(None if is_tensor else [], dim, ndim)

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        low, high = least_above(self.low, Y), largest_below(self.high, Y)
        margin = self.margin * (self.high - self.low)
        inside = (low <= Y) & (high >= Y)
        placed = torch.clamp(widened(Y), self.low + margin, self.high - margin)
        placed = torch.where(inside, widened(Y), placed.clamp(low, high))
        bounds = constraints.interval(self.low, self.high)  # type: ignore[no-untyped-call]
        X: Tensor = transform_to(bounds).inv(placed)
        return X.to(Y.dtype)

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest distance of an entry from the interval."""
        low, high = least_above(self.low, Y), largest_below(self.high, Y)
        return largest_entry(torch.maximum(low - Y, Y - high).clamp(min=0))

    def tolerance(self, Y: Tensor) -> float:
        return 0.0

    def extra_repr(self) -> str:
        return f"low={self.low}, high={self.high}" + ", strict=True" * self.strict


class UnitInterval(Interval):
    """Keep the entries of `layer.weight` between 0 and 1: `sigmoid(X)`.

    The same as `Interval(0, 1)`.

    >>> linear = register_parametrization(torch.nn.Linear(9, 9), "weight", UnitInterval())
    >>> bool(((linear.weight > 0) & (linear.weight < 1)).all())
    True
    """

    def __init__(self, *, margin: float = 1e-3, strict: bool = False) -> None:
        super().__init__(0.0, 1.0, margin=margin, strict=strict)

    def extra_repr(self) -> str:
        return "strict=True" if self.strict else ""


def check_margin(margin: float) -> None:
    if not 0 <= margin < 0.5:
        raise ValueError(f"margin must be at least 0 and less than 1/2. Got margin={margin}.")


def spacing(X: Tensor) -> tuple[float, float]:
    """The relative distance of numbers in the dtype of `X`, and the smallest normal one.

    TorchScript does not support `torch.finfo`.
    """
    if X.dtype == torch.float64:
        return 2.0**-52, 2.0**-1022
    if X.dtype == torch.float16:
        return 2.0**-10, 2.0**-14
    return (2.0**-7 if X.dtype == torch.bfloat16 else 2.0**-23), 2.0**-126


def above(bound: float, X: Tensor) -> float:
    """A number just above `bound` that stays above it when rounded to the dtype of `X`."""
    eps, smallest = spacing(X)
    return bound + max(abs(bound) * eps, smallest)


def below(bound: float, X: Tensor) -> float:
    """A number just below `bound` that stays below it when rounded to the dtype of `X`."""
    return -above(-bound, X)


def above_each(bound: Tensor, X: Tensor) -> Tensor:
    """`above` for each entry."""
    eps, smallest = spacing(X)
    wide = bound.to(torch.promote_types(bound.dtype, X.dtype))
    return wide + (wide.abs() * eps).clamp(min=smallest)


def below_each(bound: Tensor, X: Tensor) -> Tensor:
    """`below` for each entry."""
    return -above_each(-bound, X)


def least_above(bound: float | Tensor, X: Tensor) -> Tensor:
    """The least number of the dtype of `X` that counts as larger than `bound`."""
    if isinstance(bound, Tensor):
        return above_each(bound, X).to(dtype=X.dtype, device=X.device)
    return X.new_full((), above(bound, X))  # a number moved to a GPU would make the host wait


def largest_below(bound: float | Tensor, X: Tensor) -> Tensor:
    """The largest number of the dtype of `X` that counts as less than `bound`."""
    return -least_above(-bound, X)
