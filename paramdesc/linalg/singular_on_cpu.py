"""A few iterations for the largest singular value of one matrix on a CPU, with Python numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.linalg.precision import epsilon, smallest_normal
from paramdesc.torch_internals.dynamo import is_dynamo_compiling
from paramdesc.torch_internals.mode import is_plain

__all__ = ["improve_on_cpu", "leading_of_bidiagonal"]


def improve_on_cpu(M: Tensor, v: Tensor, iterations: int) -> tuple[Tensor, Tensor] | None:
    """The result of `improve_triple` for one matrix and a few iterations, at half the cost.

    The coefficients are Python numbers, which are faster than small tensors on a CPU. The vectors
    come from the recurrence of Golub and Kahan, as long as rounding leaves them orthogonal. One
    more product with the adjoint gives the new `v`.

    None where this does not apply: on other devices, in traces, or if the scale is out of range.
    """
    if M.device.type != "cpu" or M.is_complex() or is_dynamo_compiling() or not is_plain():
        return None
    adjoint, w, z = M.t(), torch.mv(M, v), v
    alpha, beta = length_on_cpu(w), 1.0
    smallest, least = smallest_normal(M) ** 0.3, epsilon(M) ** 0.5 * alpha
    if not smallest < alpha < 1 / smallest:
        return None
    lefts, alphas, betas = [w], [alpha], []
    count = min(iterations, *M.shape)
    for k in range(1, count + 1):
        z = torch.addmv(z, adjoint, w, beta=-alpha / beta, alpha=1 / alpha)
        if k == 1:  # near the solution, little is left: remove the rounding error along v
            z = torch.sub(z, v, alpha=torch.dot(v, z).item())
        beta = length_on_cpu(z)
        betas.append(beta)
        # z is made orthogonal to v alone, so that at first next to nothing of it is enough
        if k == count or not beta > (least if k > 1 else 8 * epsilon(M) * alpha):
            break
        w = torch.addmv(w, M, z, beta=-beta / alpha, alpha=1 / beta)
        alpha = length_on_cpu(w)
        if not alpha > least:
            break
        lefts.append(w)
        alphas.append(alpha)
    w = lefts[0]  # the vector that ended the loop may be rounding error only
    if len(lefts) > 1:
        factors = [y / a for y, a in zip(leading_of_bidiagonal(alphas, betas), alphas, strict=True)]
        w = lefts[0] * factors[0]
        for left, factor in zip(lefts[1:], factors[1:], strict=True):
            w.add_(left, alpha=factor)
    u = w.mul_(1 / length_on_cpu(w)) if len(lefts) > 1 else w / length_on_cpu(w)
    v = torch.mv(adjoint, u)
    return u, v.mul_(1 / length_on_cpu(v))


def length_on_cpu(x: Tensor) -> float:
    """The length of a real vector of moderate scale, faster than a call of `vector_norm`."""
    return math.sqrt(torch.dot(x, x).item())


def leading_of_bidiagonal(alphas: list[float], betas: list[float]) -> list[float]:
    """The leading left singular vector of a matrix with `alphas` and, right of them, `betas`.

    It is the leading eigenvector of a tridiagonal matrix. Newton's method finds the largest
    eigenvalue from above, where the pivots of an elimination from the bottom are positive; the
    vector is their product. For so few numbers, calling LAPACK would take longer.
    """
    diagonal = [a * a + b * b for a, b in zip(alphas, betas, strict=True)]
    beside = [a * b for a, b in zip(alphas[1:], betas, strict=False)]
    last = len(beside)
    around = [0.0, *beside, 0.0]  # for the rows, as in Gershgorin's circle theorem
    value = max(d + around[i] + around[i + 1] for i, d in enumerate(diagonal))
    least = 1e-16 * value
    pivots = [0.0] * (last + 1)
    for _ in range(60):
        pivot = max(value - diagonal[last], least)
        growth = 1.0
        pivots[last], slope = pivot, 1 / pivot
        for i in range(last - 1, -1, -1):
            ratio = beside[i] / pivot
            growth = 1 + ratio * ratio * growth
            pivot = max(value - diagonal[i] - beside[i] * ratio, least)
            pivots[i] = pivot
            slope += growth / pivot
        value -= 1 / slope
        if pivot <= least or slope * value > 1e15:
            break
    vector = [1.0]
    for e, pivot in zip(beside, pivots[1:], strict=True):
        vector.append(vector[-1] * e / pivot)
    return vector
