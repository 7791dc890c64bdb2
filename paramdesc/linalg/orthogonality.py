"""Matrices with orthonormal columns, and how one moves from one to another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.linalg.algorithms import by
from paramdesc.linalg.cayley import divide
from paramdesc.linalg.cayley_on_gpu import Step, Turn
from paramdesc.linalg.devices import takes_algorithms
from paramdesc.linalg.precision import epsilon, matmul, widened
from paramdesc.torch_internals.mode import has_numbers
from paramdesc.torch_internals.onnx import is_exporting_to_onnx

__all__ = [
    "cayley_across",
    "cayley_from",
    "cayley_step",
    "is_orthonormal",
    "non_orthonormality",
    "renewed",
    "skew_part",
    "split",
    "turned",
    "turned_by",
]


def turned(base: Tensor, X: Tensor) -> Tensor:
    """`base (I + A / 2) (I - A / 2)⁻¹`, with `A = (X - Xᴴ) / 2`."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        pass
    elif takes_algorithms(X):
        return by(Turn, base, X, False)
    identity = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    T = torch.sub(identity, X - X.mH, alpha=0.25)
    return torch.lerp(base, divide(base, T), 2.0)  # 2 base T⁻¹ - base, in one pass


def turned_by(base: Tensor, A: Tensor) -> Tensor:
    """`base (I + A / 2) (I - A / 2)⁻¹`, for skew-Hermitian `A`."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        pass
    elif takes_algorithms(A):
        return by(Turn, base, A, True)
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    divisor = torch.add(identity, A, alpha=-0.5)
    if A.shape[-1] <= 64 and is_solved(A):  # as `BLOCK` says
        quotient = torch.linalg.solve_ex(divisor, base, left=False)[0]
    else:
        quotient = divide(base, divisor)
    return torch.lerp(base, quotient, 2.0)  # 2 base T⁻¹ - base, in one pass


def is_solved(A: Tensor) -> bool:
    """Whether to solve a system, which the formats of some graphs cannot express."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return True
    return not is_exporting_to_onnx()


def cayley_from(base: Tensor, X: Tensor) -> Tensor:
    """`cayley_step`, with `A` from the skew part of `baseᴴ X`, and with the rest of `X`.

    A wide matrix is the conjugate transpose of a tall one, and so is its value.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        pass
    elif is_step_of_few(base, X):
        return by(Step, base, X, True)
    if X.shape[-2] < X.shape[-1]:
        return tall_cayley_from(base.mH, X.mH).mH.resolve_conj()
    return tall_cayley_from(base, X)


def tall_cayley_from(base: Tensor, X: Tensor) -> Tensor:
    S, P = split(base, X)
    return cayley_step(base, skew_part(S), P)


def cayley_across(base: Tensor, X: Tensor) -> Tensor:
    """`cayley_step` without `A`, and with the part of `X` that is orthogonal to `base`."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        pass
    elif is_step_of_few(base, X):
        return by(Step, base, X, False)
    S, P = split(base, X)
    return cayley_step(base, torch.zeros_like(S), P)


def is_step_of_few(base: Tensor, X: Tensor) -> bool:
    """Whether `Step` applies."""
    return takes_algorithms(X) and not base.requires_grad


def cayley_step(base: Tensor, A: Tensor, P: Tensor) -> Tensor:
    """The matrix with orthonormal columns that the tangent `base A + P` leads to from `base`.

    With `A` skew-Hermitian and `Pᴴ base = 0`. It is the Cayley transform of
    `W = base A baseᴴ + P baseᴴ - base Pᴴ`, times `base`, but nothing of the size of `W` is made:
    `(2 base + P) (I - A / 2 + Pᴴ P / 4)⁻¹ - base`, followed by a Newton step that corrects rounding
    errors for large `P`. Cost: four products of `n x k` and `k x k` matrices and an inverse of size
    `k`; backward four products.

    Source: the transform by Z. Wen, W. Yin, *A feasible method for optimization with
    orthogonality constraints*, Math. Program. 142 (2013), lemma 4; the rows and columns of the
    system there that belong to `P` are eliminated.
    """
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    T = identity - A / 2 + matmul(P.mH, P) / 4
    return renewed(divide(torch.add(P, base, alpha=2.0), T) - base)


def renewed(Y: Tensor) -> Tensor:
    """`Y` after a Newton step for `Yᴴ Y = I`, from nearby. The gradient is left as it is."""
    rough = Y.detach()
    excess = matmul(rough.mH, rough)
    identity = torch.eye(Y.shape[-1], dtype=Y.dtype, device=Y.device)
    return Y - matmul(rough, excess - identity) / 2


def split(base: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:
    """`S` and `P` with `X = base S + P` and `baseᴴ P = 0`, for orthonormal columns of `base`."""
    S = matmul(base.mH, X)
    return S, X - matmul(base, S)


def skew_part(S: Tensor) -> Tensor:
    """`(S - Sᴴ) / 2`."""
    return (S - S.mH) / 2


def non_orthonormality(Y: Tensor) -> Tensor:
    """The Frobenius norm of `Yᴴ Y - I`, or of `Y Yᴴ - I` for fewer rows than columns.

    A real scalar, the largest of a batch.
    """
    W = widened(Y)
    if W.numel() == 0:
        return torch.zeros((), device=Y.device)
    if W.shape[-2] < W.shape[-1]:
        W = W.mH
    identity = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
    errors: Tensor = torch.linalg.matrix_norm(matmul(W.mH, W) - identity)
    return errors.max()


def is_orthonormal(Y: Tensor, multiple: float = 20.0) -> bool:
    """Whether it is, to rounding: `multiple * eps * sqrt(k)` for `k` columns.

    False on meta, where there are no values.
    """
    if not has_numbers(Y):
        return False
    tolerance = multiple * epsilon(Y) * math.sqrt(min(Y.shape[-2:]))
    return non_orthonormality(Y).item() <= tolerance
