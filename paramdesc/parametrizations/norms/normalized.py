"""A weight divided by its spectral norm, with fewer passes over memory than autograd makes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from paramdesc.linalg.devices import is_bound_by_launches, takes_functions
from paramdesc.linalg.precision import epsilon, widened
from paramdesc.torch_internals.dynamo import is_dynamo_compiling
from paramdesc.torch_internals.mode import has_autocast

__all__ = ["Normalized", "NormalizedInFewLaunches", "is_simple", "normalized"]


def is_simple(X: Tensor, u: Tensor, dim: int) -> bool:
    """Whether `normalized` gives value and gradient, with fewer passes over the weight."""
    return (
        not is_dynamo_compiling()
        and X.requires_grad
        and torch.is_grad_enabled()
        and X.ndim > 1
        and u.dtype == X.dtype
        and takes_functions(X)
        and not has_autocast()
        and (
            is_bound_by_launches(X)
            or (dim == 0 and X.dtype in (torch.float32, torch.float64) and X.is_contiguous())
        )
    )


def normalized(X: Tensor, u: Tensor, v: Tensor, bound: float, limit: float, dim: int) -> Tensor:
    """`bound * X / sigma` with `sigma = Re(uᴴ M v)`, or `X` where `sigma` is at most `limit`.

    `M` is the weight `X` with its dimension `dim` as rows. The derivatives are those of the
    formula, of any order. `u` and `v` are not written to while derivatives may still be needed.
    """
    function: Any = Normalized.apply
    value: Tensor
    if is_bound_by_launches(X):
        function = NormalizedInFewLaunches.apply
        value = function(X, u, v, bound, limit, dim)
    else:
        value = function(X, u, v, bound, limit)
    return value


class Normalized(torch.autograd.Function):
    """`normalized` on a CPU, where reading `sigma` costs nothing.

    Autograd would read the weight twice as often.
    """

    @staticmethod
    def forward(ctx: Any, X: Tensor, u: Tensor, v: Tensor, bound: float, limit: float) -> Tensor:
        sigma = torch.dot(u, torch.mv(X.flatten(1), v)).item()
        ctx.save_for_backward(X, u, v)
        ctx.save_for_forward(X, u, v)
        ctx.sigma = sigma if sigma > limit else 0.0
        ctx.quotient = bound / sigma if sigma > limit else 1.0
        ctx.bound = bound
        value: Tensor = X * ctx.quotient
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        X, u, v = ctx.saved_tensors
        grad = grads[0]
        if not ctx.sigma:
            return grad, None, None, None, None
        if torch.is_grad_enabled():  # for second derivatives
            return differentiable_gradient(X, u, v, grad, ctx.bound), None, None, None, None
        along = torch.dot(grad.reshape(-1), X.view(-1))
        factor = -ctx.quotient * along.item() / ctx.sigma
        result = torch.addr(grad.flatten(1), u, v, beta=ctx.quotient, alpha=factor)
        return result.view_as(X), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        X, u, v = ctx.saved_tensors
        change = tangents[0]
        if ctx.sigma:
            along = torch.dot(u, torch.mv(change.flatten(1), v))
            change = change - along / ctx.sigma * X
        result: Tensor = ctx.quotient * change
        return result


class NormalizedInFewLaunches(torch.autograd.Function):
    """`normalized` without reading a number: four operations, and four for the gradient.

    Half precision takes three more for each, to compute in float32.
    """

    @staticmethod
    def forward(
        ctx: Any, X: Tensor, u: Tensor, v: Tensor, bound: float, limit: float, dim: int
    ) -> Tensor:
        u, v = widened(u), widened(v)
        sigma = torch.vdot(u, torch.mv(as_matrix(X, dim), v)).real
        divisor = torch.threshold(sigma, limit, bound)
        if bound != 1:
            divisor = divisor / bound
        value: Tensor = X / divisor
        # up to the limit, the divisor does not depend on the weight. If the limit is tiny, so is
        # what the gradient has of it
        if limit > epsilon(X):
            u = u * (sigma > limit)
        saved = X, u, v, divisor, value
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        ctx.bound, ctx.limit, ctx.dim = bound, limit, dim
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        X, u, v, divisor, value = ctx.saved_tensors
        grad = grads[0]
        if torch.is_grad_enabled():  # for second derivatives
            sigma = torch.vdot(u, torch.mv(as_matrix(X, ctx.dim), v)).real
            # up to the limit, the divisor is one
            divisor = torch.where(sigma > ctx.limit, sigma / ctx.bound, divisor)
            value = X / divisor
        wide = widened(grad)
        along = torch.vdot(widened(value).reshape(-1), wide.reshape(-1)).real
        rows = wide.movedim(ctx.dim, 0)
        result = torch.addr(rows.flatten(1), u * along, v.conj(), alpha=-1 / ctx.bound)
        result = (result / divisor).view(rows.shape).movedim(0, ctx.dim)
        return result.to(X.dtype), None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        _, u, v, divisor, value = ctx.saved_tensors
        change = tangents[0]
        along = torch.vdot(u, torch.mv(as_matrix(change, ctx.dim), v)).real
        result: Tensor = (change - along / ctx.bound * value) / divisor
        return result.to(value.dtype)


def as_matrix(X: Tensor, dim: int) -> Tensor:
    """`X` with its dimension `dim` as rows, in float32 if it is in half precision."""
    return widened(X).movedim(dim, 0).flatten(1)


def differentiable_gradient(X: Tensor, u: Tensor, v: Tensor, grad: Tensor, bound: float) -> Tensor:
    """The gradient where `sigma` is above the limit."""
    sigma = torch.dot(u, torch.mv(X.flatten(1), v))
    along = torch.dot(grad.reshape(-1), X.reshape(-1))
    outer = torch.outer(u, v).view_as(X)
    return (grad - along / sigma * outer) * (bound / sigma)
