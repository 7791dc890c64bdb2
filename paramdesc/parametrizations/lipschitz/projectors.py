"""Orthogonal convolutions of two taps, `I - P + P z` for a projection `P`, and their products.

A kernel is a tensor `(groups, c, *taps, n)` here: for each group, a polynomial in shifts whose
coefficients are `c x n` matrices. No `from __future__ import annotations`: TorchScript needs the
annotations of a function as objects.
"""

from typing import List, Tuple  # noqa: UP035 - TorchScript knows them

import torch
from torch import Tensor

from paramdesc.linalg.precision import matmul

__all__ = ["expanded", "factor_order", "multiplied", "reduced", "split_by"]


def factor_order(counts: List[int]) -> List[Tuple[int, bool]]:  # noqa: UP006
    """For each factor, from the outside: the axis of taps that it lengthens, and its kind.

    The axes come one after the other, with `counts` factors for each. The factors along one axis
    alternate: the first shifts the range of its projection, the next one the complement, and so on.
    """
    found: List[Tuple[int, bool]] = []  # noqa: UP006
    for axis, count in enumerate(counts):
        for turn in range(count):
            found.append((axis + 2, turn % 2 == 1))  # noqa: PERF401 (for TorchScript)
    return found


def split_by(K: Tensor, U: Tensor, shifts_rest: bool) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """The part of `K` that stays where it is, and the part that is shifted."""
    part = matmul(U, matmul(U.mH, K.flatten(2))).view_as(K)
    rest = K - part
    if shifts_rest:
        return part, rest
    return rest, part


def expanded(K: Tensor, U: Tensor, axis: int, shifts_rest: bool) -> Tensor:
    """`(I - P + P z) K` with `P = U Uᴴ`, or `(P + (I - P) z) K`: one tap more along `axis`."""
    still, shifted = split_by(K, U, shifts_rest)
    n = K.shape[axis]
    if n == 1:
        return torch.cat([still, shifted], dim=axis)
    inner = still.narrow(axis, 1, n - 1) + shifted.narrow(axis, 0, n - 1)
    ends = still.narrow(axis, 0, 1), shifted.narrow(axis, n - 1, 1)
    return torch.cat([ends[0], inner, ends[1]], dim=axis)


def reduced(K: Tensor, U: Tensor, axis: int, shifts_rest: bool) -> Tensor:
    """The inverse of `expanded`: one tap less along `axis`. Whatever does not fit is dropped."""
    still, shifted = split_by(K, U, shifts_rest)
    n = K.shape[axis]
    return still.narrow(axis, 0, n - 1) + shifted.narrow(axis, 1, n - 1)


def multiplied(
    K: Tensor,
    bases: Tensor,
    order: List[Tuple[int, bool]],  # noqa: UP006
) -> Tensor:
    """The product of the factors with the given `bases`, `(groups, factors, c, r)`, times `K`."""
    for i in range(len(order)):
        axis, shifts_rest = order[len(order) - 1 - i]
        K = expanded(K, bases[:, len(order) - 1 - i], axis, shifts_rest)
    return K
