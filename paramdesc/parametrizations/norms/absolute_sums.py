"""Weights whose rows or columns have bounded sums of absolute values."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import widened
from paramdesc.parametrizations.norms.length import as_dims

__all__ = ["AbsoluteSums"]

WAYS = ("whole", "each", "nearest")


class AbsoluteSums(Parametrization):
    """Limit the sum of the absolute values in each row of `layer.weight` to `bound`.

    The largest sum is an operator norm. With `dim=-1`, which sums over each row, it is the norm
    induced by the maximum norm: no entry of `Y x` is larger than `bound` times the largest entry of
    `x`. With `dim=-2`, which sums over each column, it is the norm induced by the 1-norm. For a 2d
    convolution, `dim=(1, 2, 3)` and `dim=(0, 2, 3)` bound these two norms of the linear map from
    images to images; for a transposed convolution, they are exchanged. `operator_norm_inf` and
    `operator_norm_1` choose the dimensions for a layer.

    There are three ways to enforce the bound:

    - `"whole"` divides the whole weight by one number if a sum is too large:
      `X min(1, bound / max sum)`. The ratios between rows are kept.
    - `"each"` divides each row by its own number: `x min(1, bound / sum)`.
    - `"nearest"` replaces each row with the nearest one in the Euclidean norm. It lowers all
      absolute values in a row by the same number, but not below zero, so rows become sparse, and
      entries at zero have no gradient.

    Shapes `(*) -> (*)`, real and complex; half precision is computed in float32. With `"whole"`,
    there is one number for all batches. Cost: two passes; `"nearest"` sorts each row.

    Assignment and registration keep rows (or with `"whole"`, weights) within the bound as they are
    and replace any other as above.

    Args:
        bound: the upper bound of the sums, positive. The sum over a row bounds how much that output
            can change.
        dim: the dimensions to sum over; None for all of them.
        by: `"whole"`, `"each"` or `"nearest"`.
        groups: the groups of a convolution. Sums over dimension 0 are taken within each group.
        strict: whether to reject a weight with larger sums instead of replacing it.

    Raises:
        ValueError: if an argument is out of its range; with `strict`, if an assigned weight has a
            larger sum; the error's `deviation` is the excess.

    Source: H. Gouk et al., *Regularisation of neural networks by enforcing Lipschitz continuity*,
    Machine Learning 110 (2021), section 4, for the norms; C. Anil, J. Lucas and R. Grosse, *Sorting
    out Lipschitz function approximation*, ICML 2019, for `"nearest"`, with the algorithm of J.
    Duchi et al., *Efficient projections onto the l1-ball for learning in high dimensions*, ICML
    2008, figure 1.

    >>> linear = torch.nn.Linear(100, 3)
    >>> _ = register_parametrization(linear, "weight", AbsoluteSums(2.0, by="each"))
    >>> linear.weight.abs().sum(dim=-1)
    tensor([2.0000, 2.0000, 2.0000], grad_fn=<SumBackward1>)
    """

    constraint = "within the bound on absolute sums"

    def __init__(
        self,
        bound: float = 1.0,
        *,
        dim: int | tuple[int, ...] | None = -1,
        by: str = "whole",
        groups: int = 1,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be positive and finite. Got bound={bound}.")
        if by not in WAYS:
            raise ValueError(f"by must be one of {', '.join(map(repr, WAYS))}. Got by={by!r}.")
        if groups < 1:
            raise ValueError(f"groups must be positive. Got groups={groups}.")
        self.bound = float(bound)
        self.dim = as_dims(dim)
        self.by = by
        self.groups = groups

    def forward(self, X: Tensor) -> Tensor:
        if X.numel() == 0:
            return X
        split = self.split(widened(X))
        dims = self.dims(X.ndim)
        size = split.abs()
        if self.by == "nearest":
            return lowered(split, size, dims, self.bound).view_as(X).to(X.dtype)
        sums = size.sum(dims, keepdim=True)
        if self.by == "whole":
            sums = sums.flatten().amax(0)
        return (split / (sums / self.bound).clamp(min=1)).view_as(X).to(X.dtype)

    def split(self, X: Tensor) -> Tensor:
        """`X` with a dimension for the groups in front."""
        return X.reshape([self.groups, X.shape[0] // self.groups] + list(X.shape[1:]))  # noqa: RUF005

    def dims(self, ndim: int) -> list[int]:
        """The dimensions to sum over, after `split`."""
        given = self.dim
        found: list[int] = []
        if given is None:
            given = list(range(ndim))
        for dim in given:
            if not -ndim <= dim < ndim:
                raise ValueError(f"a weight of {ndim} dimensions has no dimension {dim}.")
            found.append(dim % ndim + 1)
        return found

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        return Y

    def deviation(self, Y: Tensor) -> Tensor:
        """The amount by which the largest sum exceeds `bound`."""
        sums = self.split(widened(Y)).abs().sum(self.dims(Y.ndim))
        return largest_entry((sums - self.bound).clamp(min=0))

    def tolerance(self, Y: Tensor) -> float:
        return self.bound * super().tolerance(Y)

    def extra_repr(self) -> str:
        dim = None if self.dim is None else tuple(self.dim)
        shown = [f"bound={self.bound}", f"dim={dim}", f"by={self.by!r}"]
        shown += [f"groups={self.groups}"] * (self.groups > 1)
        return ", ".join(shown + ["strict=True"] * self.strict)


def lowered(X: Tensor, size: Tensor, dims: list[int], bound: float) -> Tensor:
    """The nearest tensor whose absolute values sum to `bound` at most along `dims`.

    With the absolute values in descending order, they are lowered by the largest of
    `(sum of the first k - bound) / k`.
    """
    others: list[int] = []
    for i in range(X.ndim):
        if i not in dims:
            others.append(i)  # noqa: PERF401 (TorchScript does not support conditions in it)
    ordered = size.permute(others + dims).flatten(len(others)) if dims else size
    ordered = torch.sort(ordered, dim=-1, descending=True)[0]
    counts = torch.arange(1, ordered.shape[-1] + 1, device=X.device, dtype=size.dtype)
    excess = ((ordered.cumsum(-1) - bound) / counts).amax(-1).clamp(min=0)
    shape = [1 if i in dims else n for i, n in enumerate(X.shape)]
    left = (size - excess.view(shape)).clamp(min=0)
    return X * (left / size.masked_fill(size == 0, 1.0))
