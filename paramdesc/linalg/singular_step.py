"""A few iterations for leading singular vectors, by the algorithm that suits the device."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from paramdesc.linalg.devices import is_bound_by_launches
from paramdesc.linalg.precision import without_autocast
from paramdesc.linalg.singular_chebyshev import (
    improve_by_chebyshev,
    products_of_map,
    products_of_matrix,
)
from paramdesc.linalg.singular_gram import improve_by_gram, is_medium
from paramdesc.linalg.singular_iteration import LinearMap, improve_triple, times
from paramdesc.linalg.singular_on_cpu import improve_on_cpu
from paramdesc.linalg.singular_squaring import improve_by_squaring, is_small

__all__ = ["affordable_iterations", "improve_pair", "improve_pair_of_map"]

FEW = 6
"""Up to how many iterations rounding leaves vectors orthogonal that are made so locally."""


def affordable_iterations(M: Tensor, count: int, entries: Optional[int] = None) -> int:  # noqa: UP045
    """`count`, or twice as many where they cost little beside the passes over the weight.

    Args:
        entries: how many the weight has, if `M` is a part of it.
    """
    is_cheap = (M.numel() if entries is None else entries) > 50_000
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        is_cheap = is_cheap and not is_bound_by_launches(M)
    return 2 * count if is_cheap else count


def improve_pair(
    M: Tensor, u: Tensor, v: Tensor, iterations: int, tolerance: float | None
) -> tuple[Tensor, Tensor]:
    """Better leading singular vectors of the matrix `M`, from unit vectors `u` and `v`.

    Args:
        iterations: how many to make, at most if there is a tolerance. A single one is a power
            iteration on every device.
        tolerance: as in `largest_singular_triple`.
    """
    is_few = tolerance is None and not is_bound_by_launches(M) and iterations <= FEW
    if is_few and M.numel() > 0:
        found = improve_on_cpu(M, v, iterations)
        if found is not None:
            return found
    with without_autocast(M):
        if tolerance is None and is_bound_by_launches(M):
            if iterations > 1 and is_small(M):
                return improve_by_squaring(M, u, v)
            if iterations > 1 and is_medium(M, iterations):
                return improve_by_gram(M, u, v, iterations)
            return improve_by_chebyshev(products_of_matrix(M), u, v, iterations)
        adjoint = M.mH
        return improve_triple(
            lambda x: times(M, x), lambda y: times(adjoint, y), u, v, iterations, tolerance
        )


def improve_pair_of_map(
    apply: LinearMap,
    adjoint: LinearMap,
    u: Tensor,
    v: Tensor,
    iterations: int,
    tolerance: float | None,
) -> tuple[Tensor, Tensor]:
    """Better leading singular vectors of a linear map, from unit vectors `(*, m)` and `(*, n)`."""
    if tolerance is None and is_bound_by_launches(u):
        # products of maps are not cheap, and the polynomial comes as close by one iteration less
        iterations -= iterations > 2
        return improve_by_chebyshev(products_of_map(apply, adjoint), u, v, iterations)
    return improve_triple(apply, adjoint, u, v, iterations, tolerance)
