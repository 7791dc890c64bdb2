"""Which algorithm suits a device, and functions with a derivative in few operations.

On a CPU, an operation costs what it computes. Elsewhere each costs the host 8 to 10 microseconds,
whatever its size, and one that tells the host a number makes it wait for all before it.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.compiler import is_compiling
from torch.nn import Parameter

from paramdesc.linalg.precision import without_autocast
from paramdesc.torch_internals.mode import (
    has_dual_tensors,
    has_transforms,
    is_plain,
    is_tracing,
)
from paramdesc.torch_internals.placeholders import is_stand_in

__all__ = [
    "Algorithm",
    "by",
    "counts_launches",
    "is_bound_by_launches",
    "plus_product",
    "suits_cpu",
    "takes_functions",
]

COUNTED_BY_SIZE = frozenset({"cpu", "meta"})
"""The devices where small tensors are cheap, and where looking at a number costs nothing."""


def is_bound_by_launches(X: Tensor) -> bool:
    """Whether the number of operations counts more than their size, as on a GPU.

    There, an operation takes 8 to 10 microseconds to start, whatever its size, and a number that is
    looked at waits until the device has finished everything before it.
    """
    return X.device.type not in COUNTED_BY_SIZE


def takes_functions(X: Tensor) -> bool:
    """Whether an autograd function may take the place of the operations that it stands for.

    Not under transforms, in traces, or for a subclass of tensors. On a CPU a function may look at
    numbers, so meta and fake tensors are left to the operations.
    """
    is_own = (type(X) is Tensor or type(X) is Parameter) and not X.is_meta
    if is_bound_by_launches(X):
        return (is_own or is_stand_in(X)) and not (has_transforms() or is_tracing())
    return is_own and is_plain()


def suits_cpu(X: Tensor) -> bool:
    """Whether what is best on a CPU is best where `X` is."""
    return not is_bound_by_launches(X)


def counts_launches(X: Tensor) -> bool:
    """Whether to use an `Algorithm`: in eager code on other devices, outside of transforms."""
    if is_compiling() or suits_cpu(X):  # in this order: Dynamo cannot follow the others
        return False
    return not (is_tracing() or has_transforms() or has_dual_tensors())


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
