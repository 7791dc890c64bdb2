"""A weight divided by its spectral norm, with fewer passes over memory than autograd makes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["Normalised"]


class Normalised(torch.autograd.Function):
    """`bound * X / sigma` with `sigma = uᵀ M v`, or `X` where `sigma` is at most `limit`.

    Autograd would read the weight twice as often. For the CPU, where reading `sigma` costs nothing.
    """

    @staticmethod
    def forward(ctx: Any, X: Tensor, u: Tensor, v: Tensor, bound: float, limit: float) -> Tensor:
        # the state is written in place by later steps, while this graph may still need it
        u, v = u.clone(), v.clone()
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
        along = torch.dot(grad.reshape(-1), X.view(-1))
        if torch.is_grad_enabled():  # for second derivatives
            sigma = torch.dot(u, torch.mv(X.flatten(1), v))
            outer = torch.outer(u, v).view_as(X)
            return (grad - along / sigma * outer) * (ctx.bound / sigma), None, None, None, None
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
