"""Better leading singular vectors of a linear map, by products with vectors alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import List  # noqa: UP035 - TorchScript knows it

import torch
from torch import Tensor

from paramdesc.linalg.precision import epsilon, may_look_at, smallest_normal

__all__ = [
    "LinearMap",
    "best_pair",
    "first_left",
    "improve_triple",
    "norm",
    "orthogonal_part",
    "scattered",
    "some_vector",
    "times",
]

LinearMap = Callable[[Tensor], Tensor]
"""From vectors `(*, n)` to vectors `(*, m)`."""


def improve_triple(
    apply: LinearMap,
    adjoint: LinearMap,
    u: Tensor,
    v: Tensor,
    iterations: int,
    tolerance: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Better leading singular vectors of a linear map, from unit vectors `u` and `v`.

    Each iteration makes one product each way, as power iteration does. The new `u` is the
    best of all combinations of the left vectors that it meets: the one whose product with
    the adjoint is the longest. `v` is the direction of that product, so that one iteration
    alone is a power iteration. Where the map is zero, the last solution stays.

    Works for batches `(*, m)` and `(*, n)`. Nothing is asked of the data, unless there is a
    tolerance.
    """
    iterations = min(iterations, u.shape[-1], v.shape[-1])
    if iterations == 0 or u.numel() == 0 or v.numel() == 0:
        return u, v
    left, inverse = first_left(apply(v), u)
    if tolerance is not None and not may_look_at(left):
        tolerance = None
    lefts = [left]
    products = [adjoint(left) * inverse]
    for k in range(1, iterations):
        left, length = orthogonal_part(apply(products[-1]) * inverse, lefts)
        if tolerance is not None and k % 4 == 0 and is_converged(products, length, tolerance):
            break
        lefts.append(left)
        products.append(adjoint(left) * inverse)
    return best_pair(lefts, products, u, v)


def first_left(w: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The direction of `w`, or `u` if that is zero, and what makes products of moderate size."""
    # squares of the entries themselves might overflow or vanish
    size = norm(w, math.inf)
    inverse = torch.threshold(size, smallest_normal(size), 1.0).reciprocal()
    w = unless_zero(w * inverse, u)
    length = norm(w)
    return w / length, inverse / length


def best_pair(
    lefts: List[Tensor],  # noqa: UP006
    products: List[Tensor],  # noqa: UP006
    u: Tensor,
    v: Tensor,
) -> tuple[Tensor, Tensor]:
    """The best combination of `lefts` and the direction of its product; `u`, `v` if that is zero.

    `products` are those of `lefts` with the adjoint.
    """
    left, image = lefts[0], products[0]
    if len(lefts) > 1:
        combination = leading_combination(products)[1]
        left = times(torch.stack(lefts, -2).mT, combination)
        image = times(torch.stack(products, -2).mT, combination)
    left = unless_zero(left, u)
    image = unless_zero(image, v)
    length = norm(image)
    is_found = torch.isfinite(length)  # a map that is not finite must not spoil the state
    return torch.where(is_found, left / norm(left), u), torch.where(is_found, image / length, v)


def orthogonal_part(w: Tensor, basis: List[Tensor]) -> tuple[Tensor, Tensor]:  # noqa: UP006
    """The direction and length of the part of `w` orthogonal to the orthonormal `basis`.

    Zero if only rounding errors are left: the basis then spans everything that can be reached.
    """
    rows = torch.stack(basis, -2)
    is_double = w.dtype == torch.float64 or w.dtype == torch.complex128
    noise = norm(w) * (1e-15 if is_double else 5e-7)
    for _ in range(2):  # once is not accurate enough if little is left
        w = minus_times(w, rows.mT, times(rows.conj(), w))
    length = norm(w)
    return w / torch.where(length > noise, length, math.inf), length


def leading_combination(products: List[Tensor]) -> tuple[Tensor, Tensor]:  # noqa: UP006
    """The coefficients of the longest combination of `products`, and all squared lengths."""
    rows = torch.stack(products, -2)
    gram = rows.conj() @ rows.mT
    finite = torch.where(gram.isfinite(), gram, 0.0)  # eigh raises otherwise
    squares, combinations = torch.linalg.eigh(finite)
    combination = combinations[..., -1]
    first = combination[..., :1]
    # the sign is that of power iteration: the next solution is near the last one, not its negative
    return squares, combination * (first.sgn() + (first == 0)).conj()


def is_converged(products: list[Tensor], length: Tensor, tolerance: float) -> bool:
    """Whether the estimated relative error of the leading value is below `tolerance`.

    By Temple's bound: the squared residual over the distance to the next value. Both are
    those of the squared map. `length` is the size of what the next iteration adds.
    """
    squares, combination = leading_combination(products)
    largest = squares[..., -1]
    residual = length.reshape(largest.shape) * combination[..., -1].abs() / largest
    gap = (1 - squares[..., -2] / largest).clamp_min(epsilon(largest))
    error = torch.minimum(residual, residual.square() / gap)
    return bool((torch.nan_to_num(error, 0.0) <= tolerance / 4).all())


def some_vector(size: int, like: Tensor) -> Tensor:
    """A unit vector of random direction, the same each time."""
    # a separate generator, so that the user's random numbers stay the same
    generator = torch.Generator("cpu").manual_seed(size)
    vector = torch.randn(size, dtype=like.dtype, generator=generator, device="cpu").to(like.device)
    unit: Tensor = vector / norm(vector).clamp_min(smallest_normal(vector))
    return unit


def scattered(like: Tensor) -> Tensor:
    """Vectors `(*, n)` of length about one, without structure, by a formula for any device.

    A tiny multiple of it is added to a start vector. If the map decomposes into independent parts,
    an iteration that starts in one part would otherwise never leave it.
    """
    n = like.shape[-1]
    places = torch.arange(n, dtype=like.dtype, device=like.device)
    waves: Tensor = torch.sin(places * (places + 1.0) * 0.7548776662)
    return waves * math.sqrt(2.0 / n)


# for vectors and batches of vectors, with the fewest operations for a single one


def unless_zero(x: Tensor, otherwise: Tensor) -> Tensor:
    """`x` plus a tiny multiple of `otherwise`, which gives the direction where `x` is zero.

    The square of the factor is a normal number.
    """
    return torch.add(x, otherwise, alpha=1e-18)


def norm(x: Tensor, order: float = 2.0) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, order, [-1], x.ndim > 1)
    return length


def times(A: Tensor, x: Tensor) -> Tensor:
    """`A x`."""
    if A.ndim == 2:
        return torch.mv(A, x)
    return torch.matmul(A, x.unsqueeze(-1)).squeeze(-1)


def minus_times(w: Tensor, A: Tensor, x: Tensor) -> Tensor:
    """`w - A x`."""
    if A.ndim == 2:
        return torch.addmv(w, A, x, alpha=-1)
    return w - times(A, x)
