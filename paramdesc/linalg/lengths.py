"""Tensors whose slices have given lengths, with fewer operations than autograd makes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from paramdesc.linalg.devices import is_bound_by_launches, takes_functions
from paramdesc.linalg.precision import smallest_normal
from paramdesc.torch_internals.mode import has_dual_tensors

__all__ = ["with_lengths"]

HALF = (torch.float16, torch.bfloat16)
SINGLE_OR_DOUBLE = (torch.float32, torch.float64)

Formula = Callable[[Tensor, Tensor], Tensor]


def with_lengths(
    formula: Formula, g: Tensor, v: Tensor, dim: int | None, eps: float | None
) -> Tensor | None:
    """`g * v / ‖v‖` with the norms of slices of `v`; None if `formula` is the best way to it.

    Value and derivatives are those of `formula(g, v)`, the choice of operations depends on the
    device. Slices of length zero give zero.

    Args:
        formula: the value in operations whose derivatives of any order are right.
        g, v: the lengths, and real tensors of these directions.
        dim: the dimension whose indices have a slice each; None for the whole tensor.
        eps: the least that is divided by; None if only zero is not divided by.
    """
    ndim = v.ndim
    if (
        ndim < 2
        or g.dtype != v.dtype
        or not takes_functions(v)
        or v.numel() == 0
        or has_dual_tensors()  # these functions have no derivative in forward mode
    ):
        return None
    if dim is not None:
        dim = dim + ndim if dim < 0 else dim
        if not 0 <= dim < ndim:
            return None
    # torch has a kernel for the first and the last dimension
    has_kernel = dim is not None and eps is None and dim in (0, ndim - 1)
    if dim is not None and not is_bound_by_launches(v):
        if not has_kernel or v.dtype not in (*SINGLE_OR_DOUBLE, torch.bfloat16):
            return None
        return from_kernel(formula, g.contiguous(), v.contiguous(), dim)
    if v.dtype not in SINGLE_OR_DOUBLE and not (has_kernel and v.dtype in HALF):
        return None
    if has_kernel:
        g, v = g.contiguous(), v.contiguous()
    function: Any = WithLengths.apply
    value: Tensor = function(g, v, formula, dim, has_kernel, eps)
    return value


def from_kernel(formula: Formula, g: Tensor, v: Tensor, dim: int) -> Tensor | None:
    """The value from torch's kernel; None if a slice is zero, where it divides by zero.

    Its second derivatives are wrong, as torch takes the norms for constants there. Where a
    backward pass is recorded, the first ones are thus replaced by those of `formula`.
    """
    value, norms = torch._weight_norm_interface(v, g, dim)
    if not norms.detach().min().item() > math.sqrt(smallest_normal(norms)):
        return None

    def replace(gradients: Any, outer: Any) -> Any:
        return (
            differentiable_gradients(formula, g, v, outer[0]) if torch.is_grad_enabled() else None
        )

    if value.grad_fn is not None:
        value.grad_fn.register_hook(replace)
    return value


def differentiable_gradients(
    formula: Formula, g: Tensor, v: Tensor, gradient: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `v` and `g`, with a graph."""
    inputs = [x for x in (v, g) if x.requires_grad]
    found = iter(torch.autograd.grad(formula(g, v), inputs, gradient, create_graph=True))
    of_v, of_g = (next(found) if x.requires_grad else None for x in (v, g))
    return of_v, of_g


class WithLengths(torch.autograd.Function):
    """The value in four operations. The gradient takes torch's kernel, or at most eight.

    The kernel for the value would divide by zero. That for the gradient gets the divisors instead
    of the norms.
    """

    @staticmethod
    def forward(
        ctx: Any,
        g: Tensor,
        v: Tensor,
        formula: Formula,
        dim: int | None,
        has_kernel: bool,
        eps: float | None,
    ) -> Tensor:
        dims = None if dim is None else [d for d in range(v.ndim) if d != dim]
        is_half = v.dtype in HALF
        wide = torch.float32 if is_half else None
        norm = torch.linalg.vector_norm(v, 2.0, dims, dims is not None, dtype=wide)
        if eps is None:
            divisor = torch.threshold(norm, math.sqrt(smallest_normal(norm)), 1.0)
        else:
            divisor = norm.clamp(min=eps)
        scale = g / divisor
        ctx.save_for_backward(g, v, divisor, scale)
        ctx.formula, ctx.eps = formula, eps
        ctx.dims, ctx.kernel = dims, dim if has_kernel else None
        if is_half:  # rounded once
            return torch.mul(v, scale, out=torch.empty_like(v))
        return v * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        g, v, divisor, scale = ctx.saved_tensors
        (gradient,) = gradients
        if torch.is_grad_enabled():
            of_v, of_g = differentiable_gradients(ctx.formula, g, v, gradient)
            return of_g, of_v, None, None, None, None
        if ctx.kernel is not None:
            kernel: Any = torch.ops.aten._weight_norm_interface_backward
            of_v, of_g = kernel(gradient.contiguous(), v, g, divisor, ctx.kernel)
            return of_g, of_v, None, None, None, None
        if ctx.dims is None:
            along = torch.dot(gradient.reshape(-1), v.reshape(-1))
        else:
            along = (gradient * v).sum(ctx.dims, keepdim=True)
        of_g = along / divisor
        factor = of_g / divisor
        if ctx.eps is not None:
            factor = factor * (divisor > ctx.eps)
        if ctx.dims is None and not is_bound_by_launches(v):
            of_v = torch.sub(gradient, v, alpha=factor.item())
        else:
            of_v = torch.addcmul(gradient, v, factor, value=-1)
        return of_g, of_v.mul_(scale), None, None, None, None
