"""The matrix equations behind stable matrices, solved by doubling, in matrix products.

Smith's method needs no eigenvectors, so that defective matrices are as good as any.
"""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.precision import matmul

__all__ = ["solve_lyapunov", "solve_stein"]

DOUBLINGS = 30


def solve_stein(Z: Tensor, C: Tensor) -> Tensor:
    """The `W` with `W = Zᴴ W Z + C`, for `Z` of spectral radius less than one: `(*, n, n)`.

    It is the sum of `Zᴴᵏ C Zᵏ`, of which each step doubles the number of terms. 30 steps, of
    three products, are enough for a spectral radius up to about `1 - 1e-8`.

    Source: R. A. Smith, *Matrix equation XA + BX = C*, SIAM J. Appl. Math. 16 (1968).

    >>> from paramdesc.linalg.lyapunov import solve_stein
    >>> solve_stein(torch.tensor([[0.5]]), torch.tensor([[3.0]]))
    tensor([[4.]])
    """
    for _ in range(DOUBLINGS):
        C = C + matmul(matmul(Z.mH, C), Z)
        Z = matmul(Z, Z)
    return C


def solve_lyapunov(A: Tensor, C: Tensor | None = None) -> Tensor:
    """The `W` with `Aᴴ W + W A = -C`, for `A` with eigenvalues in the left half plane.

    By the Cayley transform of `A`, with a scale from its norm, and `solve_stein`.

    Args:
        C: the identity by default.

    >>> from paramdesc.linalg.lyapunov import solve_lyapunov
    >>> solve_lyapunov(torch.tensor([[-2.0]]))
    tensor([[0.2500]])
    """
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    norm = torch.linalg.matrix_norm(A, keepdim=True)
    scale = torch.where(norm > 0, norm, 1.0) / max(1, A.shape[-1]) ** 0.5
    half = scale * torch.linalg.inv_ex(scale * identity - A)[0]  # of I + Z, where Z is transformed
    right = half if C is None else matmul(C, half)
    return solve_stein(2 * half - identity, 2 * matmul(half.mH, right) / scale)
