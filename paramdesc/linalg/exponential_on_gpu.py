"""The matrix exponential with a number of squarings that is decided on the device.

So the host needs no number, and does not wait.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.linalg.algorithms import plus_product
from paramdesc.linalg.taylor import FACTORS, RADIUS

__all__ = ["Exponential", "squared_where_asked"]

SQUARINGS = 10
"""How many squarings are made. A matrix takes part in as many as it needs.

They are enough for a norm of 3082, or 1116 in double precision.
"""


def squared_where_asked(A: Tensor, is_skew: bool, record: list[Tensor] | None = None) -> Tensor:
    """`exp(A)`, by a Taylor polynomial and squarings; NaN where more are needed.

    What `Exponential` needs for the gradient is appended to `record`.
    """
    is_double = A.dtype in (torch.float64, torch.complex128)
    # the powers are those of a matrix with norm at most one, so that they do not overflow
    first = binary_exponent(norm(A))
    B = A * torch.exp2(-first)
    B2 = B @ B
    B3 = B2 @ B
    B6 = B3 @ B3
    bound = norm(B6) ** (1 / 6)
    if not is_skew:  # the powers of others may be small before they are large
        bound = torch.maximum(norm(B2).sqrt(), norm(B3) ** (1 / 3))
    needed = bound * (torch.exp2(first) / RADIUS[is_double])
    count = binary_exponent(needed)
    scale = torch.where(count <= SQUARINGS, torch.exp2(first - count), math.nan)
    square = scale * scale
    cube = square * scale
    powers = (B * scale, B2 * square, B3 * cube, B6 * (cube * cube))
    B1, B2, B3, B4, B5 = (combined(factors, powers) for factors in FACTORS)
    A9 = plus_product(B4, B1, B5)
    left = B3 + A9
    Y = plus_product(B2, left, A9)
    steps = torch.arange(SQUARINGS, dtype=count.dtype, device=A.device)
    masks = (count > steps).unbind(-1)
    if record is not None:
        record += [torch.exp2(-count), *powers[:3], B1, B5, A9, left]
    for mask in masks:
        if record is not None:
            record += [Y, mask]
        Y = torch.where(mask[..., None], Y @ Y, Y)
    return Y


def combined(factors: tuple[float, ...], powers: tuple[Tensor, ...]) -> Tensor:
    """The sum of the powers, each times its factor, and of a multiple of `I`."""
    terms = [(p, factor) for p, factor in zip(powers, factors[1:], strict=True) if factor]
    (power, factor), *others = terms
    total = power * factor
    for power, factor in others:
        total = torch.add(total, power, alpha=factor)
    if factors[0]:
        identity = torch.eye(total.shape[-1], dtype=total.dtype, device=total.device)
        total = torch.add(total, identity, alpha=factors[0])
    return total


def norm(A: Tensor) -> Tensor:
    """The Frobenius norms, `(*, n, n) -> (*, 1, 1)`."""
    norms: Tensor = torch.linalg.vector_norm(A.detach(), dim=(-2, -1), keepdim=True)
    return norms


def binary_exponent(size: Tensor) -> Tensor:
    """The smallest integers from zero on with `size <= 2 ** e`."""
    return size.log2().ceil().clamp(min=0)


class Exponential:
    """`squared_where_asked`, with the gradient from the same products."""

    @staticmethod
    def value(A: Tensor, is_skew: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        record: list[Tensor] = []
        return squared_where_asked(A, is_skew, record), tuple(record)

    @staticmethod
    def gradient(
        inputs: tuple[Tensor, bool],  # noqa: ARG004
        value: Tensor,  # noqa: ARG004
        kept: list[Tensor],
        G: Tensor,
        needed: tuple[bool, bool],  # noqa: ARG004
    ) -> tuple[Tensor, None]:
        scale, A, A2, A3, B1, B5, A9, left, *squared = kept
        for Y, mask in zip(squared[-2::-2], squared[::-2], strict=True):
            adjoint = Y.mH
            G = torch.where(mask[..., None], plus_product(G @ adjoint, adjoint, G), G)
        of_left = G @ A9.mH
        of_A9 = plus_product(of_left, left.mH, G)
        of_sums = (of_A9 @ B5.mH, G, of_left, of_A9, B1.mH @ of_A9)
        of_A, of_A2, of_A3, of_A6 = (of_power(place, of_sums) for place in (1, 2, 3, 4))
        adjoint = A3.mH
        of_A3 = plus_product(plus_product(of_A3, of_A6, adjoint), adjoint, of_A6)
        adjoint = A.mH
        of_A2 = plus_product(of_A2, of_A3, adjoint)
        of_A = plus_product(of_A, A2.mH, of_A3)
        of_A = plus_product(plus_product(of_A, of_A2, adjoint), adjoint, of_A2)
        return of_A * scale, None

    @staticmethod
    def formula(A: Tensor, is_skew: bool) -> Tensor:
        return squared_where_asked(A, is_skew)


def of_power(place: int, of_sums: tuple[Tensor, ...]) -> Tensor:
    """The gradient of a power, from those of the sums that it is in."""
    terms = [
        (G, factors[place]) for G, factors in zip(of_sums, FACTORS, strict=True) if factors[place]
    ]
    (G, factor), *others = terms
    total = G * factor
    for G, factor in others:
        total = torch.add(total, G, alpha=factor)
    return total
