"""Functions without a useful gradient, trained with the gradient of the identity.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
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
    """`value`, with the gradient of `X`."""
    return value.detach() + (X - X.detach())


class StraightThrough(Parametrization):
    """Make `layer.weight` equal to `function(X)`, and pass its gradient to `X` unchanged.

    Use it for functions that are constant almost everywhere, such as `torch.sign`: their gradient
    is zero, so nothing would be trained. The straight-through estimator treats the function as the
    identity in the backward pass.

    Shapes `(*) -> (*)`; dtypes are those of the function. Cost: that of the function, and two
    passes. Assignment and registration set `X` to the value. So a value that the function does not
    change is kept, and any other is replaced by its image under the function.

    Args:
        function: a function from tensor to tensor, or a module.
        strict: whether to reject a value that the function changes instead of replacing it.

    Raises:
        ValueError: with `strict`, if the function changes an assigned tensor; the error's
            `deviation` is the largest difference.

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

    constraint = "unchanged by the function"

    def __init__(self, function: ParametrizationProto | TensorMap, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self.function = inner_map(function)

    def forward(self, X: Tensor) -> Tensor:
        return straight_through(self.function(X.detach()), X)

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        return Y

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest change that the function makes."""
        return largest_difference(self.function(Y), Y)

    def tolerance(self, Y: Tensor) -> float:
        return 4 * epsilon(Y) * largest_entry(Y).item()


class Rounded(Parametrization):
    """Round `layer.weight` to a grid of `2 ** bits` numbers, and train it as if unrounded.

    Symmetric, `Y = s * round(X / s)` with `s = max |X| / (2 ** (bits - 1) - 1)`: for 8 bits, the
    signed integers from -127 to 127. Otherwise `Y = s * (clamp(round(X / s) + z) - z)` with
    `s = (max(X, 0) - min(X, 0)) / (2 ** bits - 1)` and `z = round(-min(X, 0) / s)`: the grid spans
    the range from the smallest to the largest entry, and contains zero. The gradient is passed to
    `X` unchanged: this is quantization-aware training with the straight-through estimator.

    Shapes `(*) -> (*)`; real; half precision is rounded in float32. Zero tensors stay zero. Cost:
    six passes, nine if not symmetric. `scale_and_zero(X)` returns `s` and `z`, from which the
    integers can be computed.

    Assignment and registration keep a value that is on such a grid and round any other.

    Args:
        bits: the number of bits, from 2 to 16.
        dim: the axes along which `s` varies: 0 gives each output channel a grid of its own. By
            default, there is one grid for the tensor.
        symmetric: whether to use the symmetric grid.
        strict: whether to reject a value that is not on its grid instead of replacing it.

    Raises:
        ValueError: if `bits` is out of range; with `strict`, if an assigned tensor is not on its
            grid; the error's `deviation` is the largest difference.
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
        """The step of the grid, and the index of the grid point that represents zero."""
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
        """The nearest grid point for each entry."""
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
