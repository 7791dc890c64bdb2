"""Tensors divided by their norms, with fewer operations than autograd makes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from paramdesc.linalg.devices import is_bound_by_launches, takes_functions
from paramdesc.linalg.precision import smallest_normal
from paramdesc.torch_internals.mode import has_dual_tensors

__all__ = ["AT_MOST", "EXACT", "EXACT_OR_EVEN", "scaled_to_norm"]

EXACT = 0
"""Vectors get the norm. Those of norm zero stay as they are."""

AT_MOST = 1
"""Vectors of larger norm get it."""

EXACT_OR_EVEN = 2
"""Vectors get the norm. Those of norm zero become the one with equal entries."""

Formula = Callable[[Tensor], Tensor]


def scaled_to_norm(
    formula: Formula, X: Tensor, dims: list[int] | None, norm: float, kind: int, least: float = 0.0
) -> Tensor | None:
    """The vectors along `dims` with the given norm; None if `formula` is the best way to them.

    Value and derivatives are those of `formula(X)`. On a CPU, where the number of operations counts
    less than their size, it is the formula.

    Args:
        formula: the value in operations whose derivatives of any order are right.
        X: real vectors.
        dims: the dimensions that vectors lie along; None for the whole tensor.
        norm: the Euclidean norm, positive.
        kind: one of `EXACT`, `AT_MOST` and `EXACT_OR_EVEN`.
        least: a norm up to here counts as zero.
    """
    if (
        not is_bound_by_launches(X)
        or X.dtype not in (torch.float32, torch.float64)
        or X.numel() == 0
        or not takes_functions(X)
        or has_dual_tensors()  # this function has no derivative in forward mode
    ):
        return None
    function: Any = Scaled.apply
    value: Tensor = function(X, formula, dims, norm, kind, least)
    return value


class Scaled(torch.autograd.Function):
    """Three to seven operations, and three to six for the gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        X: Tensor,
        formula: Formula,
        dims: list[int] | None,
        bound: float,
        kind: int,
        least: float,
    ) -> Tensor:
        norm = torch.linalg.vector_norm(X, 2.0, dims, dims is not None)
        if kind == AT_MOST:
            divisor = norm.clamp(min=bound)
        else:
            least = max(least, math.sqrt(smallest_normal(norm)))
            divisor = torch.threshold(norm, least, bound if kind == EXACT else math.inf)
        if bound != 1:
            divisor = divisor / bound
        if kind == EXACT_OR_EVEN:
            even = bound * math.sqrt(norm.numel() / X.numel())
            value = torch.addcdiv((norm <= least).to(X.dtype) * even, X, divisor)
        else:
            value = X / divisor
        ctx.save_for_backward(X, norm, divisor, value)
        ctx.formula, ctx.dims, ctx.bound, ctx.kind = formula, dims, bound, kind
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        X, norm, divisor, value = ctx.saved_tensors
        (gradient,) = gradients
        if torch.is_grad_enabled():  # for second derivatives
            (of_X,) = torch.autograd.grad(ctx.formula(X), X, gradient, create_graph=True)
            return of_X, None, None, None, None, None
        if ctx.dims is None:
            along = torch.dot(gradient.reshape(-1), value.reshape(-1))
        else:
            along = (gradient * value).sum(ctx.dims, keepdim=True)
        if ctx.kind == AT_MOST:
            along = along * (norm >= ctx.bound)
        of_X = torch.addcmul(gradient, value, along, value=-1 / ctx.bound**2)
        return of_X / divisor, None, None, None, None, None
