"""Values from functions without a useful gradient, with the gradient of the identity.

Without postponed annotations: TorchScript takes those of a class as they are.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from paramdesc.chain.cuts import Cuts
from paramdesc.chain.parametrization import Parametrization
from paramdesc.chain.protocols import ParametrizationProto, TensorMap
from paramdesc.linalg.differences import largest_difference, largest_entry
from paramdesc.linalg.precision import epsilon, smallest_normal, widened
from paramdesc.parametrizations.composition.nested import inner_map, other_axes

__all__ = ["Rounded", "StraightThrough", "straight_through"]


def straight_through(value: Tensor, X: Tensor) -> Tensor:
    """`value`, with the gradient that `X` would have."""
    return value.detach() + (X - X.detach())


class StraightThrough(Parametrization):
    """`layer.weight` will be `function(X)`, and its gradient is passed on to `X` as it is.

    For functions that are constant almost everywhere, as `torch.sign`: their gradient is zero,
    and nothing would be trained. The estimator takes the function for the identity in the
    backward pass.

    Shapes `(*) -> (*)`; dtypes are those of the function. Cost: that of the function, and two
    passes. Assigning, and registering on a weight, sets `X` to it, so it keeps a value that the
    function leaves as it is, and replaces any other one by the value of the function.

    Args:
        function: a function from tensor to tensor, or a module.
        strict: whether to refuse a value that the function changes instead.

    Raises:
        ValueError: with `strict`, if a tensor is assigned that the function changes, with the
            largest difference.

    Source: Y. Bengio, N. Leonard, A. Courville, *Estimating or propagating gradients through
    stochastic neurons for conditional computation*, 2013, arXiv:1308.3432, section 4.

    >>> linear = torch.nn.Linear(3, 2)
    >>> linear = register_parametrization(linear, "weight", StraightThrough(torch.sign))
    >>> sorted(set(linear.weight.abs().flatten().tolist()))
    [1.0]
    >>> linear.weight.sum().backward()
    >>> bool((linear.parametrizations.weight.original.grad == 1).all())
    True
    """

    constraint = "left as it is by the function"

    def __init__(self, function: ParametrizationProto | TensorMap, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self.function = inner_map(function)

    def forward(self, X: Tensor) -> Tensor:
        return straight_through(self.function(X.detach()), X)

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        return Y

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest difference that the function makes."""
        return largest_difference(self.function(Y), Y)

    def tolerance(self, Y: Tensor) -> float:
        return 4 * epsilon(Y) * largest_entry(Y).item()


class Rounded(Parametrization):
    """`layer.weight` will be on a grid of `2 ** bits` numbers, and trained as if it were not.

    Symmetric, `Y = s * round(X / s)` with `s = max |X| / (2 ** (bits - 1) - 1)`: for 8 bits what
    signed integers from -127 to 127 hold. Otherwise `Y = s * (clamp(round(X / s) + z) - z)` with
    `s = (max(X, 0) - min(X, 0)) / (2 ** bits - 1)` and `z = round(-min(X, 0) / s)`: the grid
    reaches from the smallest to the largest entry, and contains zero. The gradient is passed on
    to `X` as it is: quantisation-aware training by the straight-through estimator.

    Shapes `(*) -> (*)`; real; half precision is rounded in float32. Zero tensors stay zero.
    Cost: six passes, nine if not symmetric. `scale_and_zero(X)` gives `s` and `z`, for the
    integers themselves.

    Assigning, and registering on a weight, keeps one that is on such a grid, and rounds any
    other.

    Args:
        bits: 2 to 16.
        dim: the axes along which `s` varies: 0 gives each output channel a grid of its own. By
            default there is one for the tensor.
        symmetric: which of the two grids.
        strict: whether to refuse a value that is not on its grid instead.

    Raises:
        ValueError: if `bits` is out of range; with `strict`, if a tensor is assigned that is not
            on its grid, with the largest difference.
        IndexError: if the weight has no such axes.

    Source: B. Jacob et al., *Quantization and training of neural networks for efficient
    integer-arithmetic-only inference*, CVPR 2018, equation 1 and section 3.

    >>> linear = register_parametrization(torch.nn.Linear(30, 20), "weight", Rounded(4))
    >>> linear.weight.unique().numel() <= 15
    True
    """

    constraint = "on its grid"

    def __init__(
        self,
        bits: int = 8,
        *,
        dim: int | Sequence[int] | None = None,
        symmetric: bool = True,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        if not 2 <= bits <= 16:
            raise ValueError(f"bits must be from 2 to 16. Got bits={bits}.")
        self.bits = bits
        self.whole = dim is None
        self.axes = [dim] if isinstance(dim, int) else list(dim or [0])
        self.symmetric = symmetric

    def forward(self, X: Tensor) -> Tensor:
        return straight_through(self.round(X.detach()), X)

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        has_own_grid = not self.whole and any(dim == axis % ndim for axis in self.axes)
        return ((dim,), {}) if has_own_grid else None

    def scale_and_zero(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """The step of the grid, and the number of the point that stands for zero."""
        X = widened(X)
        axes = self.others(X)
        if self.symmetric:
            largest = torch.linalg.vector_norm(X, math.inf, axes, keepdim=True)
            step = largest / (2 ** (self.bits - 1) - 1)
            low = torch.zeros_like(step)
        else:
            low = X.amin(axes, keepdim=True).clamp(max=0)
            step = (X.amax(axes, keepdim=True).clamp(min=0) - low) / (2**self.bits - 1)
        step = torch.where(step >= smallest_normal(step), step, 1.0)
        return step, torch.round(-low / step)

    def others(self, X: Tensor) -> list[int]:
        """The axes that share a grid."""
        kept: list[int] = []
        for axis in self.axes:
            if not self.whole:
                if not -X.ndim <= axis < X.ndim:
                    raise IndexError(f"a weight of shape {list(X.shape)} has no axis {axis}.")
                kept.append(axis % X.ndim)
        return other_axes(kept, X.ndim)

    def round(self, X: Tensor) -> Tensor:
        """The nearest point of its grid for each entry."""
        if X.numel() == 0:
            return X
        step, zero = self.scale_and_zero(X)
        points = torch.round(widened(X) / step)
        if not self.symmetric:
            points = torch.clamp(points + zero, 0.0, 2.0**self.bits - 1) - zero
        return (points * step).to(X.dtype)

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        return Y

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest difference from the nearest point of the grid."""
        return largest_difference(self.round(Y), Y)

    def tolerance(self, Y: Tensor) -> float:
        return 4 * epsilon(Y) * largest_entry(Y).item()

    def extra_repr(self) -> str:
        shown = [f"bits={self.bits}"] + [f"dim={self.axes}"] * (not self.whole)
        return ", ".join(shown + ["symmetric=False"] * (not self.symmetric))
