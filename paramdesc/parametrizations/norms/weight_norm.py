"""Weights whose norms and directions are trained separately."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.chain.cuts import Cuts
from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.lengths import with_lengths
from paramdesc.linalg.precision import smallest_normal, widened

__all__ = ["WeightNorm"]


class WeightNorm(Parametrization):
    """Make `layer.weight` equal to `g * v / ‖v‖`, with trainable norms `g` and directions `v`.

    The norm is taken of each slice along dimension `dim`, by default each row, or of the whole
    tensor. `g` is `original0` and `v` is `original1`, in the shapes and with the values of
    `torch.nn.utils.parametrizations.weight_norm`.

    Shapes `(*), (*) -> (*)`, where `g` has size one in all dimensions but `dim`, and no
    dimension if the norm is that of the whole tensor. Real and complex; the norms of half
    precision are taken in float32. A slice of `v` that is zero gives zero, with finite
    gradients. Cost: one pass over `v` for the norms, and one for the product.

    Assignment and registration keep any value: `v` is the weight, and `g` holds its norms. Where a
    slice is zero, `v` is one instead, so that its norm can be learned.

    Args:
        dim: the dimension of the slices: 0 for linear and convolution layers, 1 for transposed
            convolutions, -1 for the last one; None for the whole tensor.
        eps: the smallest divisor. A slice of smaller norm gives `g * v / eps`. By default, only
            norms whose square is not a normal number count as zero.

    Raises:
        ValueError: if `eps` is out of its range, or the weight has no such dimension.

    Source: T. Salimans and D. P. Kingma, *Weight normalization: a simple reparameterization to
    accelerate training of deep neural networks*, NeurIPS 2016, equation 2.

    >>> linear = register_parametrization(torch.nn.Linear(3, 2), "weight", WeightNorm())
    >>> linear.parametrizations.weight.original0.shape
    torch.Size([2, 1])
    """

    def __init__(self, dim: int | None = 0, *, eps: float | None = None) -> None:
        super().__init__()
        if eps is not None and not 0 < eps < math.inf:
            raise ValueError(f"eps must be positive and finite. Got eps={eps}.")
        self.dim = dim
        self.eps = eps

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        # TorchScript and compilers fuse the formula; in eager code fewer operations are faster
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            value = None
            if not torch.compiler.is_compiling():
                value = with_lengths(self.formula, g, v, self.dim, self.eps)
            if value is not None:
                return value
        return self.formula(g, v)

    def formula(self, g: Tensor, v: Tensor) -> Tensor:
        """The value, in operations whose derivatives of any order are correct."""
        norm = self.norm(v)
        eps = self.eps
        if eps is None:
            divisor = norm.masked_fill(norm <= math.sqrt(smallest_normal(norm)), 1.0)
        else:
            divisor = norm.clamp(min=eps)
        if v.is_complex():  # TorchScript has no derivative of a real number times a complex one
            lengths = g.real if g.is_complex() else g  # as `module.to(complex128)` makes it
            scale = (lengths / divisor).unsqueeze(-1)
            return torch.view_as_complex(torch.view_as_real(v) * scale)
        return (widened(v) * (widened(g) / divisor)).to(v.dtype)

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        is_slice = self.dim is not None and dim == self.dim % ndim
        return ((dim, dim), {}) if is_slice else None

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.norm(weight)
        dtype = norm.dtype if weight.is_complex() else weight.dtype
        if self.eps is not None:
            return norm.clamp(min=self.eps).to(dtype), weight
        is_zero = norm <= math.sqrt(smallest_normal(norm))
        return norm.masked_fill(is_zero, 0.0).to(dtype), weight.masked_fill(is_zero, 1.0)

    def norm(self, v: Tensor) -> Tensor:
        """The norms of the slices of `v`, in the shape of `g`."""
        dim = self.dim
        wide = widened(v)
        if dim is None:
            whole: Tensor = torch.linalg.vector_norm(wide)
            return whole
        if not -v.ndim <= dim < v.ndim:
            raise ValueError(f"a weight of shape {list(v.shape)} has no dimension {dim}.")
        if v.ndim == 1:  # no dimension is left, which torch would take for all of them
            return wide.abs()
        others: list[int] = []
        for i in range(v.ndim):
            if i != dim % v.ndim:
                others.append(i)  # noqa: PERF401 (TorchScript does not support conditions in it)
        norm: Tensor = torch.linalg.vector_norm(wide, 2.0, others, True)
        return norm

    def extra_repr(self) -> str:
        return f"dim={self.dim}" + ("" if self.eps is None else f", eps={self.eps}")
