"""Weights with positive entries."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.distributions.transforms import ExpTransform, SoftplusTransform
from torch.nn.functional import softplus

from paramdesc.chain.cuts import Cuts, cuts_across
from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import widened
from paramdesc.parametrizations.entries.interval import above, check_margin, least_above

__all__ = ["Positive"]


class Positive(Parametrization):
    """Make the entries of `layer.weight` positive, with the softplus `log(1 + exp(X))`.

    With `lower`, which is added to the softplus, all entries are larger than `lower`. The bound is
    strict: where rounding would give `lower` itself, the value is the next larger number, which
    differs by a relative `eps` of the dtype, or is the smallest normal number if `lower` is zero.

    Shapes `(*) -> (*)`, real; half precision is computed in float32. Cost: the softplus and one
    more pass, and another one for `lower`.

    Assignment and registration keep the entries above `lower` as they are. Near `lower` the
    softplus is flat and gradients vanish, so any other entry becomes `lower + margin`. For a small
    margin, the gradient there is `margin` times that of a plain weight.

    Args:
        lower: the lower bound, zero or positive.
        function: the function that makes entries positive, "softplus" or "exp". The exponential
            overflows beyond 88 in float32, and beyond 11 in float16.
        margin: how far above `lower` to place assigned entries that are not larger than it; 0 for
            the nearest number above. By default 0.001, or 0.02 if `lower` is not zero, as then most
            entries of a new weight are likely to be below it.
        strict: whether to reject such entries instead of replacing them.

    Raises:
        ValueError: if an argument is out of its range; with `strict`, if an assigned entry is not
            larger than `lower`; the error's `deviation` is the largest distance from the allowed
            range.

    Source: `torch.distributions.transforms.SoftplusTransform`, and `ExpTransform`.

    >>> linear = register_parametrization(torch.nn.Linear(9, 9), "weight", Positive())
    >>> bool((linear.weight > 0).all())
    True
    """

    constraint = "above the lower bound"

    def __init__(
        self,
        lower: float = 0.0,
        *,
        function: Literal["softplus", "exp"] = "softplus",
        margin: float | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        if not 0 <= lower < math.inf:
            raise ValueError(
                f"lower must be finite and not negative. Got lower={lower}. For another bound, "
                "write FromDistributions(constraints.greater_than(lower))."
            )
        if function not in ("softplus", "exp"):
            raise ValueError(f"function must be 'softplus' or 'exp'. Got function={function!r}.")
        if margin is None:
            margin = 1e-3 if lower == 0 else 0.02
        check_margin(margin)
        self.lower = float(lower)
        self.function = function
        self.margin = margin

    def forward(self, X: Tensor) -> Tensor:
        wide = widened(X)
        if self.function == "exp":  # not in place: its derivative is the value itself
            Y = torch.exp(wide) + self.lower
        else:
            Y = softplus(wide)
            if self.lower > 0:
                Y = Y.add_(self.lower)
        Y = Y.to(X.dtype)
        with torch.no_grad():  # the gradient may go on through the bound
            Y.clamp_min_(above(self.lower, X))
        return Y

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        return cuts_across([], dim, ndim)

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        least = least_above(self.lower, Y)
        placed = torch.clamp(least, min=self.lower + self.margin)
        inside = torch.where(least <= Y, Y, placed)
        transform = ExpTransform() if self.function == "exp" else SoftplusTransform()
        X: Tensor = transform.inv(widened(inside) - self.lower)
        return X.to(Y.dtype)

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest distance of an entry from the numbers larger than `lower`."""
        return largest_entry((least_above(self.lower, Y) - Y).clamp(min=0))

    def tolerance(self, Y: Tensor) -> float:
        return 0.0

    def extra_repr(self) -> str:
        shown = [f"lower={self.lower}"] * (self.lower > 0)
        shown += [f"function={self.function!r}"] * (self.function != "softplus")
        return ", ".join(shown + ["strict=True"] * self.strict)
