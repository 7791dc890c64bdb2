"""The polar factor in few operations, for devices where each costs the host time.

Nothing depends on tensor values here. The polynomials are those of `polar_steps`; the gradient
solves its matrix equation by doubling.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.linalg.algorithms import plus_product
from paramdesc.linalg.polar_factor import least_trace
from paramdesc.linalg.polar_steps import Step, approached, eye_like, fast_steps, gentle_steps
from paramdesc.linalg.precision import epsilon, smallest_normal, widened

__all__ = ["Polar"]

SHIFT = 1 / 64
"""In units of the norm: doubling is as fast for singular values of one as for `SHIFT ** 2`."""


class Polar:
    """`polar`, for matrices that are not empty.

    In half precision most polynomials are applied in that precision, the last ones in single. The
    first then are the gentle ones: rounding cannot lead them away.
    """

    @staticmethod
    def value(X: Tensor, complete: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        Z, scale, is_zero = normalized(X, complete)
        is_double = Z.dtype in (torch.float64, torch.complex128)
        if X.dtype == Z.dtype:
            Y, inner = after(Z, fast_steps(15 if is_double else 5))
        else:
            *first, second, last = gentle_steps(False)
            Y, _ = after(Z.to(X.dtype), first)
            Y, inner = after(Y.to(Z.dtype), [second, last])
        trace = torch.real(inner.diagonal(dim1=-2, dim2=-1)).sum(-1)[..., None, None]
        Y = Y.masked_fill((trace < least_trace(inner)) > is_zero, math.nan)
        # as `settled` does
        middle = Y.mH @ Z
        twice = middle + middle.mH
        size = torch.linalg.vector_norm(twice, 1, -1).amax(-1)[..., None, None]
        away = plus_product(Z, Y, twice, 1.0, -0.5)
        Y = torch.addcdiv(Y, away, size.clamp(min=smallest_normal(size)), value=2.0)
        return (Y.mH if is_wide(X) else Y).to(X.dtype), (Y, twice, scale)

    @staticmethod
    def gradient(
        inputs: tuple[Tensor, bool],
        value: Tensor,  # noqa: ARG004
        kept: tuple[Tensor, Tensor, Tensor],
        G: Tensor,
        needed: tuple[bool, bool],  # noqa: ARG004
    ) -> tuple[Tensor, None]:
        """`Y D + (G - Y C) P⁻¹` with `C = Yᴴ G` and `P D + D P = C - Cᴴ`, where `X = Y P`.

        With `J = (P + s I)⁻¹` and `T = 2 s J - I`, `D` is the sum of `2 s Tᵏ J (C - Cᴴ) J Tᵏ`.
        Each step doubles the number of terms. Likewise `P⁻¹ / 2` is that of `2 s T²ᵏ J²`.
        """
        X, _ = inputs
        Y, twice, scale = kept
        G = widened(G.mH if is_wide(X) else G)
        C = Y.mH @ G
        identity = eye_like(twice)
        if X.dtype != Y.dtype:
            twice = raised(twice, 4 * epsilon(X))
        k = twice.shape[-1]
        # below zero, where rounding may lead, the sum would have no end
        shift = SHIFT + epsilon(twice) * max(2.0, k**0.5 / 4)
        factor = torch.linalg.cholesky_ex(torch.add(twice, identity, alpha=2 * shift))[0]
        J = torch.cholesky_inverse(factor)  # half of that
        T = torch.sub(identity, J, alpha=4 * SHIFT)
        D = J @ (C - C.mH) @ J
        is_square = Y.shape[-2] == k
        half_inverse = None if is_square else J @ J
        for _ in range(38 if Y.dtype in (torch.float64, torch.complex128) else 18):
            D = plus_product(D, T @ D, T)
            T = T @ T
            if half_inverse is not None:
                half_inverse = plus_product(half_inverse, half_inverse, T)
        # of the conjugate transpose of the other product a copy would be made
        change = (D.mH - D) @ Y.mH if is_wide(X) else Y @ (D - D.mH)
        if half_inverse is not None:
            rest = plus_product(G, Y, C, alpha=-1.0)
            left, right = (half_inverse, rest.mH) if is_wide(X) else (rest, half_inverse)
            change = plus_product(change, left, right, 1.0, 4.0)
        return (change * (4 * SHIFT / scale)).to(X.dtype), None

    @staticmethod
    def formula(X: Tensor, complete: bool) -> Tensor:
        Z = normalized(X, complete)[0]
        is_double = Z.dtype in (torch.float64, torch.complex128)
        Y, _ = approached(Z, gentle_steps(is_double))
        return (Y.mH if is_wide(X) else Y).to(X.dtype)


def raised(twice: Tensor, least: float) -> Tensor:
    """`2 (P + least² (P + least I)⁻¹)`, from `2 P`.

    It is positive, and near `P` for what is larger than `least`. In half precision `P` may have
    negative eigenvalues, down to what rounding takes for zero.
    """
    moved = torch.add(twice, eye_like(twice), alpha=2 * least)
    half_inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex(moved)[0])
    return torch.add(twice, half_inverse, alpha=4 * least**2)


def normalized(X: Tensor, complete: bool) -> tuple[Tensor, Tensor, Tensor]:
    """A tall matrix of norm one at most, what `X` is divided by, and whether `X` is zero."""
    Z = widened(X.mH if is_wide(X) else X)
    # far from overflow first: the bound of the norm is within n^(1/8) of it
    size = Z.detach().abs().amax(dim=(-2, -1), keepdim=True)
    is_zero = size <= smallest_normal(size)
    size = size.masked_fill(is_zero, 1.0)
    Z = Z / size
    if complete:
        Z.diagonal(dim1=-2, dim2=-1).add_(is_zero.squeeze(-1))
    inner = Z.detach().mH @ Z.detach()
    bound = torch.linalg.vector_norm(inner @ inner, dim=(-2, -1), keepdim=True) ** 0.25
    bound = bound.clamp(min=1.0)  # unless the matrix is zero, an entry is one
    return Z / bound, size * bound, is_zero


def after(Y: Tensor, steps: list[Step]) -> tuple[Tensor, Tensor]:
    """`Y` after these polynomials, and `Yᴴ Y` before the last."""
    inner = Y
    for first, third, fifth in steps:
        inner = Y.mH @ Y
        Y = plus_product(Y, Y, plus_product(inner, inner, inner, third, fifth), first)
    return Y, inner


def is_wide(X: Tensor) -> bool:
    return X.shape[-2] < X.shape[-1]
