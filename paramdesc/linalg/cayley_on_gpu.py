"""The Cayley transform in few operations, for devices where each costs the host time."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.algorithms import plus_product

__all__ = ["Step", "Turn"]


LARGEST_FOR_LU = 256
"""Up to this size, an inverse by LU took less time on an H100: 0.55 ms at 256, 1.2 ms at 512. A
transform by Cholesky with its backward pass took 1.1 ms at both."""


class Turn:
    """`B (I + A / 2) (I - A / 2)⁻¹`, with the identity for `B` if that is None.

    `A` is skew-Hermitian if `is_skew`, and `(X - Xᴴ) / 2` for the given `X` otherwise.
    """

    @staticmethod
    def value(base: Tensor | None, X: Tensor, is_skew: bool) -> tuple[Tensor, tuple[Tensor]]:
        M = inverse_of_normal(*scaled(X, is_skew))
        if base is None:
            return torch.lerp(eye(X), M, 2.0), (M,)
        return plus_product(base, base, M, -1.0, 2.0), (M,)

    @staticmethod
    def gradient(
        inputs: tuple[Tensor | None, Tensor, bool],
        value: Tensor,
        kept: tuple[Tensor],
        G: Tensor,
        needed: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, None]:
        base, _, is_skew = inputs
        (M,) = kept
        H = G @ M.mH
        of_base = 2 * H - G if needed[0] else None
        if not needed[1]:
            return of_base, None, None
        Z = M if base is None else torch.lerp(base, value, 0.5)  # base M
        W = Z.mH @ H
        return of_base, W if is_skew else (W - W.mH) / 2, None

    @staticmethod
    def formula(base: Tensor | None, X: Tensor, is_skew: bool) -> Tensor:
        K, scale = scaled(X, is_skew)
        identity = eye(X)
        M: Tensor = torch.linalg.inv_ex(torch.sub(identity, K, alpha=scale))[0]
        return 2 * M - identity if base is None else 2 * (base @ M) - base


def inverse_of_normal(K: Tensor, scale: float) -> Tensor:
    """`T⁻¹` of `T = I - scale K`, for skew-Hermitian `K`.

    `T` is normal, so `T⁻¹ = (Tᴴ T)⁻¹ Tᴴ`, with the Cholesky factor of `Tᴴ T = I + scale² Kᴴ K`.
    """
    identity = eye(K)
    if K.shape[-1] <= LARGEST_FOR_LU:
        M: Tensor = torch.linalg.inv_ex(torch.sub(identity, K, alpha=scale))[0]
        return M
    adjoint = torch.add(identity, K, alpha=scale)
    gram = plus_product(identity, K.mH, K, alpha=scale**2)
    M = torch.cholesky_solve(adjoint, torch.linalg.cholesky_ex(gram)[0])
    # the factor is that of a square: a step of Newton's method brings back what that took
    return plus_product(M, M, plus_product(identity, adjoint.mH, M, alpha=-1.0))


def scaled(X: Tensor, is_skew: bool) -> tuple[Tensor, float]:
    """`K` and a number with `number * K = A / 2`."""
    return (X, 0.5) if is_skew else (X - X.mH, 0.25)


class Step:
    """`cayley_step(base, (S - Sᴴ) / 2, P)` for the parts `S = baseᴴ X` and `P = X - base S`.

    Without the first, if not `has_skew`. The base is a constant. If there are fewer rows than
    columns, all matrices are the conjugate transposes of these: products change their order.
    """

    @staticmethod
    def value(base: Tensor, X: Tensor, has_skew: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        plus = plus_reversed if is_wide(X) else plus_product
        adjoint = base.mH
        S = times(adjoint, X, base)
        P = plus(X, base, S, 1.0, -1.0)
        T = plus(eye(S), P.mH, P, 1.0, 0.25)
        if has_skew:
            T = torch.sub(T, S - S.mH, alpha=0.25)
        M = torch.linalg.inv_ex(T)[0]
        Z = times(torch.add(P, base, alpha=2.0), M, base)
        Y = Z - base
        return plus(Y, Y, times(Y.mH, Y, base), 1.5, -0.5), (P, M, Z, adjoint)

    @staticmethod
    def gradient(
        inputs: tuple[Tensor, Tensor, bool],
        value: Tensor,  # noqa: ARG004
        kept: tuple[Tensor, ...],
        G: Tensor,
        needed: tuple[bool, bool, bool],  # noqa: ARG004
    ) -> tuple[None, Tensor, None]:
        base, X, has_skew = inputs
        plus = plus_reversed if is_wide(X) else plus_product
        P, M, Z, adjoint = kept
        of_P = times(G, M.mH, base)
        W = times(Z.mH, of_P, base)  # minus the gradient of T
        V = W.mH
        of_P = plus(of_P, P, W + V, 1.0, -0.25)
        of_skew = (W - V, 0.25) if has_skew else (W, 0.0)
        of_S = plus(of_skew[0], adjoint, of_P, of_skew[1], -1.0)
        return None, plus(of_P, base, of_S, 1.0, 1.0), None

    @staticmethod
    def formula(base: Tensor, X: Tensor, has_skew: bool) -> Tensor:
        if is_wide(X):
            return Step.formula(base.mH, X.mH, has_skew).mH
        S = base.mH @ X
        P = X - base @ S
        T = eye(S) + P.mH @ P / 4
        if has_skew:
            T = T - (S - S.mH) / 4
        Y: Tensor = (P + 2 * base) @ torch.linalg.inv_ex(T)[0] - base
        rough = Y.detach()
        return Y - rough @ (rough.mH @ rough - eye(S)) / 2


def is_wide(X: Tensor) -> bool:
    return X.shape[-2] < X.shape[-1]


def times(A: Tensor, B: Tensor, like: Tensor) -> Tensor:
    """`A B`, or `B A` if `like` is wide."""
    return B @ A if is_wide(like) else A @ B


def plus_reversed(C: Tensor, A: Tensor, B: Tensor, beta: float, alpha: float) -> Tensor:
    """`beta C + alpha B A`."""
    return plus_product(C, B, A, beta, alpha)


def eye(A: Tensor) -> Tensor:
    return torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
