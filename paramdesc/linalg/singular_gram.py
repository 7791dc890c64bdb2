"""Better leading singular vectors of matrices of medium size, through their Gram matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.linalg.precision import has_full_products, smallest_normal
from paramdesc.linalg.singular_chebyshev import BOUND, MOST, length
from paramdesc.torch_internals.dynamo import is_dynamo_compiling

__all__ = ["improve_by_gram", "is_medium"]


def is_medium(M: Tensor, iterations: int) -> bool:
    """Whether forming the Gram matrix takes no longer than the operations that it saves."""
    return (
        not is_dynamo_compiling()  # which cannot follow the question for the precision
        and not M.is_complex()
        and iterations <= MOST
        and min(M.shape) * M.numel() <= 2**30
        # a Gram matrix of few digits would have other vectors
        and (M.dtype == torch.float64 or has_full_products())
    )


def improve_by_gram(M: Tensor, u: Tensor, v: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Better leading singular vectors of a real matrix, from unit vectors `u` and `v`.

    The polynomial of `improve_by_chebyshev`, of degree `4 iterations + 8` in the singular values,
    from the vector that belongs to the smaller side of `M`. It is a polynomial of degree
    `iterations + 2` of the one of degree four, which is formed as a matrix of that side. So the
    degree grows by four with each product. Where the matrix is zero or not finite, the last
    solution stays.
    """
    if M.shape[0] > M.shape[1]:
        right, left = improve_by_gram(M.mT, v, u, iterations)
        return left, right
    tiny = 10 * smallest_normal(u)  # gives a direction where the product is exactly zero
    scaled = M / length(torch.addmv(v, M.mT, u, beta=tiny))
    # T2(x) = 2 x² - 1, where x is a singular value divided by the end of the interval
    gram = torch.addmm(u, scaled, scaled.mT, beta=0, alpha=2 / BOUND)
    gram = gram.clamp(-3, 3)  # no entry is as large, unless the matrix has grown by far in one step
    gram.diagonal().sub_(1)
    gram = torch.addmm(u, gram, gram, beta=0, alpha=2)  # T4 = T2(T2)
    gram.diagonal().sub_(1)
    before, left = u, torch.mv(gram, u)
    for _ in range(iterations + 1):
        before, left = left, torch.addmv(before, gram, left, beta=-1, alpha=2)
    left = left / length(left)
    right = torch.addmv(v, M.mT, left, beta=tiny)
    size = length(right)
    is_found = size < math.inf
    return torch.where(is_found, left, u), torch.where(is_found, right / size, v)
