"""Weights of bounded length."""

from __future__ import annotations

from torch import Tensor

from paramdesc.chain.cuts import Cuts, cuts_across
from paramdesc.parametrizations.norms.length import Length

__all__ = ["MaxNorm"]


class MaxNorm(Length):
    """The rows of `layer.weight` will be no longer than `bound`: `y = x * min(1, bound / ‖x‖)`.

    The norm is Euclidean, along `dim`: `dim=-1` bounds each row, which is what a unit of a
    linear layer is fed by, and `dim=(1, 2, 3)` does so for a 2d convolution.

    Shapes `(*) -> (*)`, real and complex; the norms of half precision are taken in float32.
    Cost: one pass for the norms, and one for the product.

    Assigning, and registering on a weight, keeps what is short enough as it is, and replaces
    the rest by the nearest value that is, `Y`.

    Args:
        bound: the largest norm, positive.
        dim: the dimensions along which it is taken; None for all of them.
        strict: whether to refuse a weight of larger norm instead.

    Raises:
        ValueError: if `bound` is out of its range; with `strict`, if a norm of a weight that is
            assigned is larger, with the excess.

    Source: N. Srivastava et al., *Dropout: a simple way to prevent neural networks from
    overfitting*, JMLR 15 (2014), section 5.1.

    >>> linear = register_parametrization(torch.nn.Linear(100, 3), "weight", MaxNorm(0.5))
    >>> linear.weight.norm(dim=-1)
    tensor([0.5000, 0.5000, 0.5000], grad_fn=<LinalgVectorNormBackward0>)
    """

    constraint = "within the largest norm"

    def __init__(
        self,
        bound: float = 1.0,
        *,
        dim: int | tuple[int, ...] | None = -1,
        strict: bool = False,
    ) -> None:
        super().__init__(bound, dim=dim, strict=strict)

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        return cuts_across(self.dim, dim, ndim)

    def forward(self, X: Tensor) -> Tensor:
        return self.scaled(X, only_shrink=True)

    def deviation(self, Y: Tensor) -> Tensor:
        """By how much the largest norm exceeds `bound`."""
        return self.largest_error(Y, only_shrink=True)

    def extra_repr(self) -> str:
        dim = None if self.dim is None else tuple(self.dim)
        return f"bound={self.bound}, dim={dim}" + ", strict=True" * self.strict
