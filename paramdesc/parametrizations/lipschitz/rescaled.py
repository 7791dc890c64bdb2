"""Weights of 1-Lipschitz layers, with one factor for each row or column.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
"""

import math
from collections.abc import Sequence
from typing import List, Tuple  # noqa: UP035 - TorchScript knows them

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import epsilon, smallest_normal, widened
from paramdesc.parametrizations.lipschitz.balance import absolute_gram, balance, row_ratios
from paramdesc.parametrizations.lipschitz.kernels import (
    as_weight,
    check_convolution,
    polyphase,
    spatial_dims,
)
from paramdesc.torch_internals.placeholders import is_placeholder

__all__ = ["LipschitzRescaled", "Rescaling"]


class Rescaling(Parametrization):
    """A map that divides the rows or columns of a weight, so that its operator norm is at most one.

    With `A` the absolute Gram matrix of the rows or columns, and positive numbers `q`, each is
    divided by the root of `(A q)_i / q_i`. Subclasses define `forward` and `right_inverse`.
    """

    # TorchScript needs the type of this list
    stride: List[int]  # noqa: UP006

    def __init__(
        self,
        stride: int | Sequence[int],
        groups: int,
        *,
        dim: int | None,
        strict: bool,
    ) -> None:
        super().__init__(strict=strict)
        self.stride = [stride] if isinstance(stride, int) else list(stride)
        if not self.stride or min(self.stride) < 1 or groups < 1:
            raise ValueError(
                f"stride and groups must be positive. Got stride={stride}, groups={groups}."
            )
        if dim is not None and dim not in (0, 1):
            raise ValueError(f"dim must be 0, 1 or None. Got dim={dim}.")
        self.groups = groups
        self.dim = dim

    def check(self, X: Tensor) -> None:
        if X.ndim != 2:
            check_convolution(X, self.groups)

    def kernel(self, X: Tensor) -> Tensor:
        """`X` without strides: `(groups, a, b, *taps)`, where `a` are the outputs."""
        if X.ndim == 2:
            return X.unsqueeze(0)
        return polyphase(X, spatial_dims(self.stride, X.ndim - 2, "stride"), self.groups)

    def weight(self, K: Tensor, like: Tensor) -> Tensor:
        """The inverse of `kernel`."""
        if like.ndim == 2:
            return K.squeeze(0)
        stride = spatial_dims(self.stride, like.ndim - 2, "stride")
        return as_weight(K, stride, list(like.shape[2:]))

    def divides_rows(self, K: Tensor) -> bool:
        dim = self.dim
        if dim is None:
            return K.shape[1] < K.shape[2]
        return dim == 0

    def gram(self, K: Tensor) -> Tensor:
        """The absolute Gram matrix of the rows or columns of each group."""
        return absolute_gram(K.transpose(1, 2) if self.divides_rows(K) else K)

    def scaled(self, K: Tensor, factors: Tensor) -> Tensor:
        """The rows or columns of `K` times `factors`."""
        axis = 1 if self.divides_rows(K) else 2
        shape = [factors.shape[0]] + [1 for _ in range(K.ndim - 1)]
        shape[axis] = factors.shape[1]
        return K * factors.reshape(shape)

    def brought_to_one(self, X: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """The kernel, with entries up to one, and its absolute Gram matrix."""
        self.check(X)
        K = self.kernel(widened(X))
        size = K.detach().abs()
        # the value does not depend on the scale, and nothing overflows
        largest = torch.linalg.vector_norm(size, math.inf if size.numel() > 0 else 2.0)
        K = K / torch.threshold(largest, smallest_normal(largest), 1.0)
        return K, self.gram(K)

    def divided(self, K: Tensor, ratios: Tensor, X: Tensor) -> Tensor:
        is_zero = ratios <= smallest_normal(ratios)
        factors = torch.rsqrt(ratios.masked_fill(is_zero, 1.0))
        return self.weight(self.scaled(K, factors), X).to(X.dtype)

    def deviation(self, Y: Tensor) -> Tensor:
        """How far the spectral radius of the absolute Gram matrix is from one.

        The largest difference over all groups, and over all sets of rows or columns that are
        orthogonal to the others. Zero rows or columns do not count.
        """
        self.check(Y)
        A = self.gram(self.kernel(widened(Y)))
        ratios = row_ratios(A, balance(A))
        return largest_entry((ratios - 1).masked_fill(ratios <= smallest_normal(ratios), 0.0))

    def tolerance(self, Y: Tensor) -> float:
        return 20 * epsilon(Y) * math.sqrt(Y.numel())

    def extra_repr(self) -> str:
        shown = [f"stride={tuple(self.stride)}"] if set(self.stride) != {1} else []
        shown += [f"groups={self.groups}"] * (self.groups > 1)
        return ", ".join(shown + ["strict=True"] * self.strict)


class LipschitzRescaled(Rescaling):
    """Limit the operator norm of `layer.weight` to one: `Y = X D`, with a factor for each column.

    The factors are `d_i = (sum_j |Xᴴ X|_ij)^(-1/2)`, or the same for rows, `Y = D X`. The norm is
    one if the columns are orthogonal to each other, and lower otherwise. No iteration is needed,
    and the bound holds at each step. A zero column stays zero, with finite gradient.

    Shapes: matrices `(m, n)` of linear layers, and weights of convolutions
    `(out, in / groups, *kernel)`, of 1 to 3 spatial dimensions. There `Xᴴ X` is the
    operator, from images to images, and the sum is over all channels and pixels. The bound holds
    for any image size, and for circular and zero padding. A transposed convolution is the adjoint,
    of the same norm. With a stride, the pixels that it covers count as channels of their own. Real
    and complex; half precision is computed in float32. Batches of matrices are not taken.

    Assignment and registration keep a value of the map, such as an orthogonal weight, and multiply
    any other by a number that makes it one. The values are the weights for which the matrix of
    absolute values `|Yᴴ Y|` has spectral radius one; each set of columns that is orthogonal to the
    others gets its own number.

    Cost of an evaluation: the product `Xᴴ X`; for a convolution of `c` channels and `T` taps,
    about `T²` products of `c x c` matrices.

    Args:
        stride, groups: the arguments of the convolution.
        dim: 0 for a factor for each row (output), 1 for a factor for each column; None for the
            smaller of the two, where the bound is tighter and cheaper.
        strict: whether to reject a weight that is not a value of the map instead of scaling it.

    Raises:
        ValueError: if the weight is neither a matrix nor that of a convolution; with `strict`, if
            an assigned weight has another spectral radius; the error's `deviation` is the
            difference.

    Source: B. Prach and C. H. Lampert, *Almost-orthogonal layers for efficient general-purpose
    Lipschitz networks*, ECCV 2022, theorem 1, for "AOL".

    >>> linear = register_parametrization(torch.nn.Linear(3, 5), "weight", LipschitzRescaled())
    >>> bool(torch.linalg.matrix_norm(linear.weight, 2) <= 1 + 1e-6)
    True
    """

    constraint = "rescaled to be 1-Lipschitz"

    def __init__(
        self,
        stride: int | Sequence[int] = 1,
        groups: int = 1,
        *,
        dim: int | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(stride, groups, dim=dim, strict=strict)

    def forward(self, X: Tensor) -> Tensor:
        K, A = self.brought_to_one(X)
        return self.divided(K, A.sum(-1), X)

    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> Tensor:
        self.check(Y)
        self.admit(Y)
        if is_placeholder(Y):
            return Y
        K = self.kernel(widened(Y))
        return self.weight(self.scaled(K, balance(self.gram(K))), Y).to(Y.dtype).contiguous()

    def extra_repr(self) -> str:
        shown = [] if self.dim is None else [f"dim={self.dim}"]
        return ", ".join(shown + [super().extra_repr()] * bool(super().extra_repr()))
