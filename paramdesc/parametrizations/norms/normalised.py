"""A weight divided by its spectral norm, with fewer passes over memory than autograd makes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from paramdesc.linalg.devices import is_bound_by_launches
from paramdesc.linalg.precision import epsilon

__all__ = ["Normalised", "NormalisedInFewLaunches", "normalised"]


def normalised(X: Tensor, u: Tensor, v: Tensor, bound: float, limit: float) -> Tensor:
    """`bound * X / sigma` with `sigma = uᵀ M v`, or `X` where `sigma` is at most `limit`.

    `M` is the weight `X` with its first dimension as rows. The derivatives are those of the
    formula, of any order. `u` and `v` are not written to as long as these may be asked for.
    """
    function: Any = NormalisedInFewLaunches if is_bound_by_launches(X) else Normalised
    value: Tensor = function.apply(X, u, v, bound, limit)
    return value


class Normalised(torch.autograd.Function):
    """`normalised` on a CPU, where reading `sigma` costs nothing.

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


class NormalisedInFewLaunches(torch.autograd.Function):
    """`normalised` without a look at a number: four operations, and four for the gradient."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, u: Tensor, v: Tensor, bound: float, limit: float) -> Tensor:
        sigma = torch.dot(u, torch.mv(X.flatten(1), v))
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
        ctx.bound, ctx.limit = bound, limit
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        X, u, v, divisor, value = ctx.saved_tensors
        grad = grads[0]
        if torch.is_grad_enabled():  # for second derivatives
            sigma = torch.dot(u, torch.mv(X.flatten(1), v))
            # up to the limit, the divisor is one
            divisor = torch.where(sigma > ctx.limit, sigma / ctx.bound, divisor)
            value = X / divisor
        along = torch.dot(grad.reshape(-1), value.reshape(-1))
        result = torch.addr(grad.flatten(1), u * along, v, alpha=-1 / ctx.bound)
        return (result / divisor).view_as(X), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        _, u, v, divisor, value = ctx.saved_tensors
        change = tangents[0]
        along = torch.dot(u, torch.mv(change.flatten(1), v))
        result: Tensor = (change - along / ctx.bound * value) / divisor
        return result


def differentiable_gradient(X: Tensor, u: Tensor, v: Tensor, grad: Tensor, bound: float) -> Tensor:
    """The gradient where `sigma` is above the limit."""
    sigma = torch.dot(u, torch.mv(X.flatten(1), v))
    along = torch.dot(grad.reshape(-1), X.reshape(-1))
    outer = torch.outer(u, v).view_as(X)
    return (grad - along / sigma * outer) * (bound / sigma)
