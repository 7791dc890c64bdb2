"""Weights with a given Frobenius norm."""

from __future__ import annotations

from torch import Tensor

from paramdesc.chain.cuts import Cuts, cuts_across
from paramdesc.parametrizations.base_point import check_rebase, shown_rebase
from paramdesc.parametrizations.norms.length import Length

__all__ = ["FrobeniusNorm"]


class FrobeniusNorm(Length):
    """Give `layer.weight` the Frobenius norm `bound`: `Y = bound * X / ‖X‖`.

    The norm is the square root of the sum of squares of all entries, or of those along `dim`:
    `dim=(-2, -1)` normalizes each matrix of a batch, and `dim=-1` each row.

    Shapes `(*) -> (*)`, real and complex; the norms of half precision are taken in float32. A zero
    weight, or one whose squares underflow, stays as it is, with finite gradient. Cost: one pass for
    the norm, and one for the product.

    Assignment and registration keep a weight of this norm as it is and replace any other with the
    nearest weight of this norm, which is `Y`.

    Args:
        bound: the norm, positive.
        dim: the dimensions along which the norm is taken; None for all of them.
        only_shrink: whether to leave a weight of smaller norm as it is, so that `bound` is an upper
            bound.
        rebase: the number of training steps after which the original is reset to the value, as in
            `Sphere`; None for never. It has no effect with `only_shrink`.
        strict: whether to reject a weight of another norm instead of replacing it.

    Raises:
        ValueError: if `bound` is out of its range; with `strict`, if an assigned weight has another
            norm; the error's `deviation` is the difference.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", FrobeniusNorm(2.0))
    >>> round(linear.weight.norm().item(), 3)
    2.0
    """

    constraint = "of the given norm"

    def __init__(
        self,
        bound: float = 1.0,
        *,
        dim: int | tuple[int, ...] | None = None,
        only_shrink: bool = False,
        rebase: int | None = 50,
        strict: bool = False,
    ) -> None:
        super().__init__(bound, dim=dim, strict=strict)
        check_rebase(rebase)
        self.rebase = None if only_shrink else rebase
        self.only_shrink = only_shrink

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        return cuts_across(self.dim, dim, ndim)

    def forward(self, X: Tensor) -> Tensor:
        return self.scaled(X, self.only_shrink)

    def recenter(self, X: Tensor) -> tuple[Tensor, ...]:
        """The value, as in `Sphere`. Not with `only_shrink`: there, `X` does not grow."""
        return (self.forward(X),)

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest difference of a norm from `bound`; with `only_shrink`, the largest excess."""
        return self.largest_error(Y, self.only_shrink)

    def extra_repr(self) -> str:
        shown = [f"bound={self.bound}"]
        if self.dim is not None:
            shown.append(f"dim={tuple(self.dim)}")
        if self.only_shrink:
            shown.append("only_shrink=True")
        else:
            shown += shown_rebase(self)
        shown += ["strict=True"] * self.strict
        return ", ".join(shown)
