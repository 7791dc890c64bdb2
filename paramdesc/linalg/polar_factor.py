"""The polar factor in eager and compiled code, with its own derivative."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from paramdesc.linalg.polar_steps import (
    Round,
    Step,
    approached,
    derivative,
    eye_like,
    fast_steps,
    gentle_steps,
)
from paramdesc.linalg.precision import may_look_at, smallest_normal, without_autocast
from paramdesc.torch_internals.in_graph import keep_in_graph

__all__ = ["is_orthonormal_soon", "polar_factor"]

ROUNDS = 6
"""The most rounds of polynomials, enough for any condition number."""


def polar_factor(X: Tensor, size: Tensor, complete: bool) -> Tensor:
    """The polar factor in eager and compiled code, of tall matrices with entries up to one.

    `size` is zero where a matrix is to count as zero; with `complete` it has the value of the
    identity.
    """
    if X.requires_grad and torch.is_grad_enabled():
        return differentiable_in_graph(X, size, complete)
    return evaluated(X, size, complete, None)[0]


def evaluated(
    X: Tensor, size: Tensor, complete: bool, rounds: list[Round] | None
) -> tuple[Tensor, Tensor | None]:
    """The value, and the constant that was added to `X` if it is singular to rounding."""
    is_double = X.dtype in (torch.float64, torch.complex128)
    if X.device.type == "cpu" and may_look_at(X):
        Y = X
        for _ in range(4 if is_double else 2):
            Y, inner = one_round(Y, fast_steps(0), rounds)
            if are_orthonormal_soon(inner):
                return Y, None
        if rounds is not None:
            rounds.clear()
        return completed(X, size, complete, rounds)
    is_zero = size <= smallest_normal(size)
    added = eye_like(X) * is_zero if complete else None
    Y, inner = one_round(
        X if added is None else X + added, fast_steps(15 if is_double else 5), rounds
    )
    return torch.where(is_zero | is_orthonormal_soon(inner), Y, math.nan), added


def completed(
    X: Tensor, size: Tensor, complete: bool, rounds: list[Round] | None
) -> tuple[Tensor, Tensor]:
    """The same for matrices that are singular to rounding."""
    is_zero = size <= smallest_normal(size)
    # no polynomial of X can restore a direction that is missing from X
    added = noise_like(X) * ~is_zero
    if complete:
        added = added + eye_like(X) * is_zero
    Y = X + added
    for _ in range(ROUNDS):
        Y, inner = one_round(Y, fast_steps(0), rounds)
        is_found = is_zero | is_orthonormal_soon(inner)
        if bool(is_found.all()):
            return Y, added
    return torch.where(is_found, Y, math.nan), added


def one_round(X: Tensor, steps: list[Step], rounds: list[Round] | None) -> tuple[Tensor, Tensor]:
    if rounds is None:
        return approached(X, steps)
    record: list[Tensor] = []
    rounds.append((steps, record))
    return approached(X, steps, record)


class PolarFactor(Function):
    """`evaluated`, with the derivative of the polar factor."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, size: Tensor, complete: bool) -> Tensor:
        rounds: list[Round] = []
        Y, ctx.added = evaluated(X, size, complete, rounds)
        ctx.rounds = [steps for steps, _ in rounds]
        saved = (X, Y, *(x for _, record in rounds for x in record))
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        return Y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():  # second derivatives are those that autograd finds
            X = ctx.saved_tensors[0]
            Y = X if ctx.added is None else X + ctx.added
            is_double = X.dtype in (torch.float64, torch.complex128)
            with without_autocast(X):
                for steps in ctx.rounds:
                    is_long = len(steps) > len(fast_steps(0))
                    Y, _ = approached(Y, gentle_steps(is_double) if is_long else steps)
            (found,) = torch.autograd.grad(Y, X, gradient, create_graph=True)
            return found, None, None
        return change(ctx, gradient), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return change(ctx, tangent)


def differentiable(X: Tensor, size: Tensor, complete: bool) -> Tensor:
    Y: Tensor = PolarFactor.apply(X, size, complete)  # type: ignore[no-untyped-call]
    return Y


differentiable_in_graph = keep_in_graph(differentiable)


def change(ctx: Any, tangent: Tensor) -> Tensor:
    _, Y, *records = ctx.saved_tensors
    rounds = []
    for steps in ctx.rounds:
        count = 1 + 3 * len(steps)
        rounds.append((steps, records[:count]))
        records = records[count:]
    with without_autocast(Y):
        return derivative(Y, rounds, tangent)


def is_orthonormal_soon(inner: Tensor) -> Tensor:
    """Whether the last polynomial makes `Y` orthonormal, from `Yᴴ Y`: `(*, n, n) -> (*, 1, 1)`.

    No singular value is above one at this point, so the trace shows whether one is below.
    """
    trace = torch.real(inner.diagonal(dim1=-2, dim2=-1)).sum(-1, keepdim=True).unsqueeze(-1)
    return torch.logical_not(trace < least_trace(inner))  # NaN stays NaN


def are_orthonormal_soon(inner: Tensor) -> bool:
    """Whether this holds for all matrices of a batch. Faster for a single matrix."""
    if inner.ndim == 2 and not inner.is_complex():
        return not inner.trace().item() < least_trace(inner)
    return bool(is_orthonormal_soon(inner).all())


def least_trace(inner: Tensor) -> float:
    is_double = inner.dtype == torch.float64 or inner.dtype == torch.complex128
    n = inner.shape[-1]
    return n - (max(3e-6, n * 2.0**-49) if is_double else max(2.5e-3, n * 2.0**-20))


def noise_like(X: Tensor) -> Tensor:
    """A fixed matrix of the size of rounding in `X`, with entries up to one, and of full rank.

    It comes from a formula that works on any device. Only its lack of structure matters.
    """
    m, n = X.shape[-2], X.shape[-1]
    is_double = X.dtype == torch.float64 or X.dtype == torch.complex128
    rows = torch.arange(m, dtype=torch.float32, device=X.device).unsqueeze(-1)
    columns = torch.arange(n, dtype=torch.float32, device=X.device)
    numbers = torch.frac(torch.sin(12.9898 * rows + 78.233 * columns + 1.0) * 43758.5453)
    return numbers.to(X.dtype) * (2.0**-48 if is_double else 2.0**-19)
