"""Functions whose value and gradient are written out, in few operations."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from paramdesc.linalg.precision import without_autocast

__all__ = ["Algorithm", "by", "plus_product"]


class Algorithm(Protocol):
    """A function of tensors whose value and gradient take few operations."""

    @staticmethod
    def value(*inputs: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The value, and what else `gradient` needs. Called without gradients."""

    @staticmethod
    def gradient(inputs: Any, value: Tensor, kept: Any, G: Tensor, needed: Any) -> Any:
        """The gradients of `inputs` for the gradient `G` of the value; None where not needed."""

    @staticmethod
    def formula(*inputs: Any) -> Tensor:
        """The value, in operations that autograd can differentiate twice."""


def by(algorithm: type[Algorithm], *inputs: Any) -> Tensor:
    """The value of the algorithm; second derivatives are those of its formula.

    Inputs may be tensors, None and constants.
    """
    value: Tensor = Evaluation.apply(algorithm, *inputs)  # type: ignore[no-untyped-call]
    return value


class Evaluation(Function):
    """The value of an algorithm, with its gradient."""

    @staticmethod
    def forward(ctx: Any, algorithm: type[Algorithm], *inputs: Any) -> Tensor:
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        with without_autocast(tensors[0]):
            value, kept = algorithm.value(*inputs)
        ctx.algorithm = algorithm
        ctx.constants = [None if isinstance(x, Tensor) else x for x in inputs]
        ctx.are_tensors = [isinstance(x, Tensor) for x in inputs]
        ctx.save_for_backward(*tensors, value, *kept)
        return value

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> tuple[Any, ...]:
        saved = list(ctx.saved_tensors)
        inputs = [
            saved.pop(0) if is_tensor else constant
            for is_tensor, constant in zip(ctx.are_tensors, ctx.constants, strict=True)
        ]
        needed = ctx.needs_input_grad[1:]
        with without_autocast(G):
            if torch.is_grad_enabled():
                return None, *gradients_of_formula(ctx.algorithm, inputs, G, needed)
            value, *kept = saved
            return None, *ctx.algorithm.gradient(inputs, value, kept, G, needed)


def gradients_of_formula(
    algorithm: type[Algorithm], inputs: list[Any], G: Tensor, needed: tuple[bool, ...]
) -> list[Tensor | None]:
    asked = [x for x, is_needed in zip(inputs, needed, strict=True) if is_needed]
    found = iter(torch.autograd.grad(algorithm.formula(*inputs), asked, G, create_graph=True))
    return [next(found) if is_needed else None for is_needed in needed]


def plus_product(C: Tensor, A: Tensor, B: Tensor, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """`beta C + alpha A B`, in one operation for matrices and for batches of one dimension."""
    if A.ndim == B.ndim == C.ndim == 2:
        return torch.addmm(C, A, B, beta=beta, alpha=alpha)
    if A.ndim == B.ndim == 3 and C.ndim <= 3:
        return torch.baddbmm(C, A, B, beta=beta, alpha=alpha)
    return torch.add(beta * C, A @ B, alpha=alpha)
