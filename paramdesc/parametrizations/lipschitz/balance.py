"""The absolute Gram matrix of a weight, and the positive vector that balances it.

No `from __future__ import annotations`: TorchScript needs the annotations of a function as objects.
"""

import math
from typing import List  # noqa: UP035 - TorchScript knows it

import torch
from torch import Tensor

from paramdesc.linalg.precision import epsilon, in_double, matmul

__all__ = ["absolute_gram", "balance", "row_ratios"]


def absolute_gram(K: Tensor) -> Tensor:
    """The sum of the absolute values of the coefficients of `Kᴴ K`, entry by entry.

    A coefficient is the sum of `K_tᴴ K_s` over all taps of equal difference `s - t`.
    `(groups, a, b, *taps) -> (groups, b, b)`, real and symmetric. Cost for `T` taps: about
    `2 T² / 3` products of `b x a` and `a x b` matrices, in one for each difference along the first
    axis; for small kernels `T²` in a single one.
    """
    if K.ndim == 3:
        return matmul(K.mH, K).abs()
    if K[0, 0].numel() <= 300:  # fewer operations count for more here
        K = K.unsqueeze(3)
    same = same_lag(list(K.shape[4:]), K)
    K = K.flatten(4) if K.ndim > 4 else K.unsqueeze(4)
    K = K.movedim(3, 1).contiguous()
    total = sums(K, 0, same)
    for lag in range(1, K.shape[1]):
        part = sums(K, lag, same)
        total = total + part + part.mT
    return total


def sums(K: Tensor, lag: int, same: Tensor) -> Tensor:
    """The coefficients of a difference along the first axis: `(groups, taps, a, b, others)`."""
    g, b, others = K.shape[0], K.shape[3], K.shape[4]
    n = K.shape[1] - lag
    early = K.narrow(1, 0, n).flatten(1, 2).flatten(2)
    late = K.narrow(1, lag, n).flatten(1, 2).flatten(2)
    pairs = matmul(early.mH, late)
    if others == 1:
        return pairs.abs()
    pairs = pairs.view(g, b, others, b, others).transpose(2, 3)
    return matmul(pairs.reshape(g, b, b, others * others), same).abs().sum(-1)


def same_lag(taps: List[int], like: Tensor) -> Tensor:  # noqa: UP006
    """Whether a pair of taps has a given difference: `(pairs, differences)`, of ones and zeros."""
    code = torch.zeros(1, dtype=torch.int64, device=like.device)
    count = 1
    for size in taps:
        index = torch.arange(size, device=like.device)
        code = (code.unsqueeze(-1) * (2 * size - 1) + index).flatten()
        count *= 2 * size - 1
    difference = code - code.unsqueeze(-1) + count // 2
    every = torch.arange(count, device=like.device)
    return (difference.flatten().unsqueeze(-1) == every).to(like.dtype)


def row_ratios(A: Tensor, weights: Tensor) -> Tensor:
    """`(A w)_i / w_i`, which is all one where `w` balances a matrix of spectral radius one."""
    return matmul(A, weights.unsqueeze(-1)).squeeze(-1) / weights


@torch.no_grad()
def balance(A: Tensor) -> Tensor:
    """Positive `w` such that all ratios `(A w)_i / w_i` in a block equal its spectral radius.

    For symmetric matrices of nonnegative entries, `(*, n, n) -> (*, n)`. A block is a set of
    indices connected by positive entries; on it, `w` is the Perron-Frobenius eigenvector. Entries
    of `w` are at least a millionth of the largest.
    """
    ones = A.new_ones(A.shape[:-1])
    ratios = row_ratios(A, ones)
    rounding = 10 * epsilon(A) * math.sqrt(A.shape[-1])
    if A.numel() == 0 or bool((ratios.amax(-1) - ratios.amin(-1) <= rounding).all()):
        return ones  # as for orthogonal weights, whose blocks rounding would connect at random
    batch = in_double(A).flatten(0, -3) if A.ndim > 2 else in_double(A).unsqueeze(0)
    found = torch.stack([balanced(one, epsilon(A)) for one in batch])
    return found.reshape(ones.shape).to(A.dtype)


def balanced(A: Tensor, eps: float) -> Tensor:
    size = A.diagonal().clamp_min(0).sqrt()
    itself = torch.eye(len(A), dtype=A.dtype, device=A.device)
    reach = (eps * size.outer(size) < A).to(A.dtype) + itself
    for _ in range(max(1, len(A) - 1).bit_length()):
        reach = (reach @ reach > 0).to(A.dtype)
    weights = torch.ones_like(size)
    for label in set(reach.argmax(-1).tolist()):
        block = (reach[label] > 0).nonzero().flatten()
        vector = torch.linalg.eigh(A[block][:, block])[1][:, -1].abs()
        weights[block] = (vector / vector.amax()).clamp_min(1e-6)
    return weights
