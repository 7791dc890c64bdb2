"""Inverses in matrix products alone, for graphs in formats that have nothing else, as ONNX."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.precision import matmul

__all__ = ["inverse_in_products", "triangular_inverse_in_products"]

STEPS = 32
"""How many steps the iteration makes. Each doubles the smallest eigenvalue of `T M`, until it is
about one; 32 are enough for a condition number of 5000, with room for the bound of the norm."""


def inverse_in_products(T: Tensor) -> Tensor:
    """`T⁻¹` by the Newton-Schulz iteration: `(*, n, n) -> (*, n, n)`.

    The number of steps is fixed, so that the graph does not depend on the numbers. For
    condition numbers up to 5000 the error is that of rounding, times the condition number.

    Source: G. Schulz, *Iterative Berechnung der reziproken Matrix*, ZAMM 13 (1933); the start:
    A. Ben-Israel, D. Cohen, *On iterative computation of generalized inverses and associated
    projections*, SIAM J. Numer. Anal. 3 (1966).

    >>> from paramdesc.linalg.in_products import inverse_in_products
    >>> inverse_in_products(torch.tensor([[2.0, 0.0], [1.0, 1.0]]))
    tensor([[ 0.5000,  0.0000],
            [-0.5000,  1.0000]])
    """
    if T.numel() == 0:
        return T
    size = T.abs()
    rows, columns = size.sum(-1, keepdim=True), size.sum(-2, keepdim=True)
    bound = rows.amax(-2, keepdim=True) * columns.amax(-1, keepdim=True)  # of the norm, squared
    M = T.mH / bound
    identity = torch.eye(T.shape[-1], dtype=T.dtype, device=T.device)
    for _ in range(STEPS):
        M = M + matmul(M, identity - matmul(T, M))
    return M


def triangular_inverse_in_products(S: Tensor) -> Tensor:
    """`S⁻¹` of an upper triangular matrix: `(*, k, k) -> (*, k, k)`. Takes `2 log2(k)` products.

    The inverses of the diagonal blocks of size `b` give those of size `2 b`, all at once. The
    entries below the diagonal have no effect.

    >>> from paramdesc.linalg.in_products import triangular_inverse_in_products
    >>> triangular_inverse_in_products(torch.tensor([[2.0, 1.0], [0.0, 1.0]]))
    tensor([[ 0.5000, -0.5000],
            [ 0.0000,  1.0000]])
    """
    k = S.shape[-1]
    zero = torch.zeros((), dtype=S.dtype, device=S.device)
    rows = torch.arange(k, device=S.device).unsqueeze(-1)
    columns = torch.arange(k, device=S.device)
    X = torch.where(rows == columns, 1 / torch.where(rows == columns, S, zero + 1), zero)
    b = 1
    while b < k:
        is_left = torch.remainder(rows, 2 * b) < b
        is_right = torch.remainder(columns, 2 * b) >= b
        start = rows - torch.remainder(rows, 2 * b)
        is_same = start == columns - torch.remainder(columns, 2 * b)
        corner = torch.where(is_left & is_right & is_same, S, zero)
        X = X - matmul(matmul(X, corner), X)
        b *= 2
    return X
