"""Weights whose rows have bounded norm."""

from __future__ import annotations

from torch import Tensor

from paramdesc.chain.cuts import Cuts, cuts_across
from paramdesc.parametrizations.norms.length import Length

__all__ = ["MaxNorm"]


class MaxNorm(Length):
    """Limit the norm of each row of `layer.weight` to `bound`: `y = x * min(1, bound / ‖x‖)`.

    The norm is Euclidean, along `dim`: `dim=-1` bounds each row, which holds the incoming weights
    of one unit of a linear layer. Use `dim=(1, 2, 3)` for a 2d convolution.

    Shapes `(*) -> (*)`, real and complex; the norms of half precision are taken in float32.
    Cost: one pass for the norms, and one for the product.

    Assignment and registration keep rows within the bound as they are and replace any other with
    the nearest such row, `Y`.

    Args:
        bound: the largest norm, positive.
        dim: the dimensions along which the norm is taken; None for all of them.
        strict: whether to reject a weight of larger norm instead of replacing it.

    Raises:
        ValueError: if `bound` is out of its range; with `strict`, if an assigned weight has a
            larger norm; the error's `deviation` is the excess.

    Source: N. Srivastava et al., *Dropout: a simple way to prevent neural networks from
    overfitting*, JMLR 15 (2014), section 5.1.

    >>> linear = register_parametrization(torch.nn.Linear(100, 3), "weight", MaxNorm(0.5))
    >>> linear.weight.norm(dim=-1)
    tensor([0.5000, 0.5000, 0.5000], grad_fn=<LinalgVectorNormBackward0>)
    """

    constraint = "within the bound on norms"

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
        """The amount by which the largest norm exceeds `bound`."""
        return self.largest_error(Y, only_shrink=True)

    def extra_repr(self) -> str:
        dim = None if self.dim is None else tuple(self.dim)
        return f"bound={self.bound}, dim={dim}" + ", strict=True" * self.strict
