"""Weights with mean zero and variance one."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from paramdesc.chain.cuts import Cuts
from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import widened

__all__ = ["WeightStandardization"]


class WeightStandardization(Parametrization):
    """Give the rows of `layer.weight` mean zero and variance one.

    The weights of each output, which is an index of dimension `dim`, become
    `y = (x - mean(x)) / sqrt(var(x) + eps)`, with the variance `mean(|x - mean(x)|²)`.

    Shapes `(*) -> (*)`, with at least two dimensions, real and complex; half precision is computed
    in float32. Where all weights of an output are equal, they become zero, with finite gradient.
    Cost: two passes.

    Assignment and registration keep a standardized weight as it is, up to `eps`, and replace any
    other with the nearest one in the Frobenius norm, which is `Y`.

    Args:
        dim: the dimension of the outputs: 0 for linear and convolution layers, 1 for transposed
            convolutions.
        eps: the number added to the variance, positive. The variance of `Y` is
            `var(x) / (var(x) + eps)`, slightly less than one.
        strict: whether to reject a weight that is not standardized instead of replacing it.

    Raises:
        ValueError: if `eps` is out of its range, or the weight has no such dimension or fewer than
            two weights for an output; with `strict`, if an assigned weight is not standardized; the
            error's `deviation` is the largest deviation of a mean from 0 or of a variance from 1.

    Source: S. Qiao et al., *Micro-batch training with batch-channel normalization and weight
    standardization*, arXiv:1903.10520 (2019), section 3.

    >>> linear = register_parametrization(
    ...     torch.nn.Linear(64, 3), "weight", WeightStandardization()
    ... )
    >>> torch.allclose(linear.weight.var(dim=-1, correction=0), torch.ones(3))
    True
    """

    constraint = "of mean zero and variance one"

    def __init__(self, dim: int = 0, *, eps: float = 1e-10, strict: bool = False) -> None:
        super().__init__(strict=strict)
        if not 0 < eps < math.inf:
            raise ValueError(f"eps must be positive and finite. Got eps={eps}.")
        self.dim = dim
        self.eps = eps

    def forward(self, X: Tensor) -> Tensor:
        outputs = self.outputs(X)
        rows = outputs.flatten(1)
        if X.is_complex():
            centered = rows - rows.mean(1, keepdim=True)
            variance = (centered * centered.conj()).real.mean(1, keepdim=True)
            rows = centered * torch.rsqrt(variance + self.eps)
        else:
            rows = layer_norm(rows, [rows.shape[1]], None, None, self.eps)
        return rows.view(outputs.shape).movedim(0, self.dim).to(X.dtype)

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        return ((dim,), {}) if dim == self.dim % ndim else None

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        return Y

    def outputs(self, X: Tensor) -> Tensor:
        """`X` with the outputs first, in a dtype with accurate means."""
        if X.ndim < 2 or not -X.ndim <= self.dim < X.ndim:
            raise ValueError(
                "a weight to standardize must have other dimensions besides its outputs, "
                f"dim={self.dim}. Got shape {list(X.shape)}."
            )
        outputs = widened(X).movedim(self.dim, 0)
        if outputs.shape[0] > 0 and outputs[0].numel() == 1:
            raise ValueError(
                "a single number has no variance: each output needs at least two weights. Got "
                f"shape {list(X.shape)} and dim={self.dim}."
            )
        return outputs

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest absolute mean, or difference of a variance from one if that is larger."""
        rows = self.outputs(Y).flatten(1)
        mean = rows.mean(1, keepdim=True)
        variance = (rows - mean).abs().square().mean(1)
        return torch.maximum(largest_entry(mean), largest_entry(variance - 1))

    def tolerance(self, Y: Tensor) -> float:
        """The effect of rounding, and of `eps` where the variance of an original is 1e-4."""
        return super().tolerance(Y) + 1e4 * self.eps

    def extra_repr(self) -> str:
        return f"dim={self.dim}, eps={self.eps}" + ", strict=True" * self.strict
