"""Polynomials that move singular values to one, and the derivative of the polar factor by them.

No `from __future__ import annotations`: TorchScript needs the annotations of a function as objects.
"""

from typing import List, Optional, Tuple  # noqa: UP035 - TorchScript knows them

import torch
from torch import Tensor

from paramdesc.linalg.precision import smallest_normal

__all__ = [
    "Round",
    "Step",
    "approached",
    "derivative",
    "eye_like",
    "fast_steps",
    "gentle_steps",
    "positive",
]

Step = Tuple[float, float, float]  # noqa: UP006
"""The coefficients of `s`, `s³` and `s⁵`."""

Round = Tuple[List[Step], List[Tensor]]  # noqa: UP006
"""The polynomials of one call of `approached`, and the tensors that it recorded."""


def fast_steps(lifts: int) -> List[Tuple[float, float, float]]:  # noqa: UP006
    """The fewest polynomials for singular values in `[0.001, 1]`.

    Smaller values become about 7000 times as large, and 4 times more for each of `lifts`
    polynomials. Each polynomial brings the values as close to one as its degree can from the
    interval in which the one before leaves them.
    """
    lift = (4.182834183293943, -3.108701109889242, 0.5806066813500492)
    return (
        [(8.470328803848073, -25.108074706661885, 18.62927559911802)]
        + [lift for _ in range(lifts + 1)]
        + [
            (3.9618572789615976, -2.9540637463593775, 0.5629761179538963),
            (3.286586217027956, -2.4647201345312775, 0.5073576938614541),
            (2.273749994434036, -1.644660367908067, 0.4161909274978861),
            (1.8887161973518343, -1.2651572253386103, 0.37651892555749505),
            # the limit, with slope zero at one, also reduces rounding errors
            (1.875, -1.25, 0.375),
            (1.875, -1.25, 0.375),
        ]
    )


def gentle_steps(is_double: bool) -> List[Tuple[float, float, float]]:  # noqa: UP006
    """Polynomials for singular values in `[1e-6, 1]`, or `[1e-12, 1]` in double precision.

    They lead values near one to one, and the slope there is zero. The fast ones send large
    values to small ones and back, where the derivative that autograd finds suffers from rounding.
    """
    steps = [(2.9, -3.3, 1.4) for _ in range(27 if is_double else 14)]
    return steps + [(1.875, -1.25, 0.375) for _ in range(4)]


def approached(
    X: Tensor,
    steps: List[Tuple[float, float, float]],  # noqa: UP006
    record: Optional[List[Tensor]] = None,  # noqa: UP006, UP045
) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """`X` after these polynomials of its singular values, and a division by a bound of its norm.

    Also the product `Yᴴ Y` of what the last polynomial is applied to. What `derivative` needs is
    appended to `record`.
    """
    inner = X.mH @ X
    square = inner @ inner
    bound = positive(torch.linalg.vector_norm(square, dim=[-2, -1], keepdim=True).sqrt())
    scale = bound.sqrt()
    Y, inner, square = X / scale, inner / bound, square / bound.square()
    if record is not None:
        record.append(scale)
    is_first = True
    for first, third, fifth in steps:
        if not is_first:
            inner = Y.mH @ Y
            square = inner @ inner
        is_first = False
        higher = third * inner + fifth * square
        if record is not None:
            record.extend([Y, inner, higher])
        Y = first * Y + Y @ higher
    return Y, inner.detach()


def derivative(Y: Tensor, rounds: List[Round], G: Tensor) -> Tensor:  # noqa: UP006
    """How the polar factor `Y` changes if the matrix changes by `G`, and its gradient for `G`.

    It is its own adjoint. The part of `G` along `Y` is `Y C`; with `X = Y P`, the value is `Y D`
    for the solution of `P D + D P = C - Cᴴ`, and the rest is divided by `P`.

    `D` is skew-Hermitian. It is the upper right block of the polynomials of
    `[[P, C - Cᴴ], [0, -P]] / 2`, and kept skew-Hermitian there: in that part each polynomial
    enlarges what rounding did no more than what is sought, while the derivative of the
    polynomials by themselves has large Hermitian parts, which cancel. Five products of
    `n x n` matrices for each polynomial.

    Source: N. J. Higham, *Functions of Matrices* (SIAM, 2008), section 2.4 for the block matrix,
    and theorem 8.9 for the derivative of the polar factor.
    """
    C = Y.mH @ G
    D = C - C.mH
    is_square = Y.shape[-2] == Y.shape[-1]
    quotient = D if is_square else eye_like(C)
    D = D / 2
    for steps, record in rounds:
        D = D / record[0]
        if not is_square:
            quotient = quotient / record[0]
        for k, (first, third, fifth) in enumerate(steps):
            Z, inner, higher = record[3 * k + 1 : 3 * k + 4]
            Q = Y.mH @ Z  # Hermitian, and Q² = inner
            W = Q @ D
            W = W + W.mH
            S = inner @ W
            block = third * W + fifth * (S + S.mH)
            D = first * D + Q @ block + D @ higher
            D = (D - D.mH) / 2
            if not is_square:
                quotient = first * quotient + quotient @ higher
    change = Y @ D
    return change if is_square else change + (G - Y @ C) @ quotient


def positive(size: Tensor) -> Tensor:
    """`size` as a constant divisor: one where it vanishes. The polar factor is scale-invariant."""
    size = size.detach()
    return torch.where(size > smallest_normal(size), size, torch.ones_like(size))


def eye_like(X: Tensor) -> Tensor:
    return torch.eye(X.shape[-2], X.shape[-1], dtype=X.dtype, device=X.device)
