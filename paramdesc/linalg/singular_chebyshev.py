"""Better leading singular vectors in few operations, none of which reads a value."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from paramdesc.linalg.precision import smallest_normal
from paramdesc.linalg.singular_iteration import LinearMap, norm

__all__ = ["improve_by_chebyshev", "products_of_map", "products_of_matrix"]

BOUND = 0.98
"""The square of the interval's end, in squares of the estimated singular value."""

Product = Callable[[Tensor, Tensor, float, float], Tensor]
"""`alpha A x + beta y`, from `x`, `y`, `alpha` and `beta`."""

MOST = 6
"""Up to how many iterations one polynomial makes: it grows, and must not overflow."""

Products = Callable[[Tensor | None], tuple[Product, Product]]
"""The products with a map and with its adjoint, both divided by a size if one is given."""


def improve_by_chebyshev(
    scaled: Products, u: Tensor, v: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Better leading singular vectors, from unit vectors `u` and `v`.

    One power iteration gives an estimate of the largest singular value. A Chebyshev polynomial of
    degree `4 iterations + 1` in the singular values then grows the vectors beyond 0.99 of this
    estimate, and leaves the others as they are: a step of the recurrence is one product with the
    map or with its adjoint, without a division. With `iterations = 1`, there is the power iteration
    alone. Where the map is zero or not finite, the last solution stays.

    On a GPU, an operation takes the same time on a small tensor as on a large one, and reading a
    value waits for the device. So this is faster there than the best combination of fewer products,
    which takes many small operations. Cost: `4 iterations + 4` products, and one division of the
    map.

    Source: Y. Saad, *Numerical Methods for Large Eigenvalue Problems*, SIAM 2011, section 7.4, on
    the matrix [[0, A], [Aᴴ, 0]].
    """
    if u.numel() == 0 or v.numel() == 0:
        return u, v
    if iterations > MOST:
        u, v = improve_by_chebyshev(scaled, u, v, iterations - MOST)
        iterations = MOST
    tiny = 10 * smallest_normal(u)  # gives a direction where the product is exactly zero
    image, adjoint = scaled(None)
    left = image(v, u, 1.0, tiny)
    left = left / length(left)
    right = adjoint(left, v, 1.0, tiny)
    size = length(right)
    right = right / size
    if min(iterations, u.shape[-1], v.shape[-1]) == 1:
        is_found = size < math.inf
        return torch.where(is_found, left, u), torch.where(is_found, right, v)
    # where the polynomial overflows, the next step starts from the power iteration
    fallback = torch.where(size < math.inf, right, v)
    image, adjoint = scaled(size)
    # T(j + 1) = 2 x T(j) - T(j - 1), with signs that make each difference a sum
    factor = 1 / math.sqrt(BOUND)
    left = image(right, left, factor, 0.0)
    for _ in range(2 * iterations):
        right = adjoint(left, right, -2 * factor, 1.0)
        left = image(right, left, 2 * factor, 1.0)
    left = left / length(left)
    right = adjoint(left, v, 1.0, tiny)
    size = length(right)
    right = right / size
    is_found = size < math.inf
    return torch.where(is_found, left, u), torch.where(is_found, right, fallback)


def products_of_matrix(M: Tensor) -> Products:
    """The products with one matrix, each a single operation."""

    def scaled(size: Tensor | None) -> tuple[Product, Product]:
        A = M if size is None else M / size
        adjoint = A.mH
        return (
            lambda x, y, alpha, beta: torch.addmv(y, A, x, alpha=alpha, beta=beta),
            lambda x, y, alpha, beta: torch.addmv(y, adjoint, x, alpha=alpha, beta=beta),
        )

    return scaled


def products_of_map(apply: LinearMap, adjoint: LinearMap) -> Products:
    """The products with a linear map on vectors `(*, n)`. Each takes two operations."""

    def scaled(size: Tensor | None) -> tuple[Product, Product]:
        return product(apply, size), product(adjoint, size)

    return scaled


def product(apply: LinearMap, size: Tensor | None) -> Product:
    if size is None:
        return lambda x, y, alpha, beta: torch.add(apply(x) * alpha, y, alpha=beta)
    inverse = size.reciprocal()

    def scaled(x: Tensor, y: Tensor, alpha: float, beta: float) -> Tensor:
        return torch.addcmul(y if beta == 1 else y * beta, apply(x), inverse, value=alpha)

    return scaled


def length(x: Tensor) -> Tensor:
    """The lengths of vectors, also where squares of their entries overflow or vanish."""
    is_single = x.dtype in (torch.float32, torch.complex64)
    if is_single and x.device.type != "mps":  # that has no double precision
        wide = torch.complex128 if x.is_complex() else torch.float64
        found: Tensor = torch.linalg.vector_norm(x, 2.0, [-1], x.ndim > 1, dtype=wide)
        return found if x.ndim == 1 else found.to(x.real.dtype)
    largest = norm(x, math.inf)
    scale = torch.threshold(largest, smallest_normal(largest), 1.0)
    return norm(x / scale) * scale
