"""The largest singular value of a linear map, with its vectors, by products with vectors alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import List  # noqa: UP035 - TorchScript knows it

import torch
from torch import Tensor

from paramdesc.linalg.precision import (
    epsilon,
    may_look_at,
    smallest_normal,
    widened,
    without_autocast,
)
from paramdesc.linalg.shapes import check_matrix
from paramdesc.torch_internals.dynamo import is_dynamo_compiling
from paramdesc.torch_internals.mode import is_plain

__all__ = ["LinearMap", "improve_triple", "largest_singular_triple", "some_vector"]

LinearMap = Callable[[Tensor], Tensor]
"""From vectors `(*, n)` to vectors `(*, m)`."""


def largest_singular_triple(
    M: Tensor,
    u: Tensor | None = None,
    v: Tensor | None = None,
    *,
    iterations: int = 64,
    tolerance: float | None = 1e-6,
) -> tuple[Tensor, Tensor, Tensor]:
    """The largest singular value of matrices, and singular vectors: `M v = sigma u`.

    Shapes `(*, m, n) -> (*), (*, m), (*, n)`. The value is real, the vectors have the dtype
    of `M`; half precision is iterated in float32. A zero matrix has the value zero.

    The gradient of `sigma` is exact where the iteration has converged: `u vᴴ`. It is finite
    also where the value is a multiple one. The vectors are detached, as is the dependence of
    that gradient on `M`: their derivatives have no bound where singular values meet.

    Cost of an iteration: one product with `M` and one with `Mᴴ`.

    Args:
        M: the matrices.
        u, v: where to start, vectors of any length but zero; from an earlier solution, a few
            iterations are enough. By default fixed vectors.
        iterations: how many to make at most.
        tolerance: the relative error of `sigma` to stop at. It is an estimate from the
            residual and the distance to the second singular value, as far as they are known.
            None makes all iterations, and asks nothing of the data.

    Raises:
        ValueError: if `M` is no matrix, or a number is out of its range.

    Source: G. H. Golub and W. Kahan, *Calculating the singular values and pseudo-inverse of
    a matrix*, SIAM J. Numer. Anal. 2 (1965), section 3, with all vectors orthogonalised anew.

    >>> sigma, u, v = largest_singular_triple(torch.tensor([[3.0, 0.0], [0.0, -5.0]]))
    >>> round(sigma.item(), 4)
    5.0
    """
    check_matrix(M, "decomposed")
    if iterations < 1:
        raise ValueError(f"iterations must be positive. Got iterations={iterations}.")
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be positive. Got tolerance={tolerance}.")
    matrix = widened(M)
    with torch.no_grad(), without_autocast(M):
        fixed, adjoint = matrix.detach(), matrix.detach().mH
        batch, (m, n) = M.shape[:-2], M.shape[-2:]
        left, right = (
            start(other, size, matrix).expand(*batch, size) for other, size in ((u, m), (v, n))
        )
        left, right = improve_triple(
            lambda x: times(fixed, x),
            lambda y: times(adjoint, y),
            left,
            right,
            iterations,
            tolerance,
        )
    with without_autocast(M):
        sigma = (left.conj() * times(matrix, right)).sum(-1)
    sigma = sigma.real if sigma.is_complex() else sigma
    narrow = M.real.dtype if M.is_complex() else M.dtype
    return sigma.to(narrow), left.to(M.dtype), right.to(M.dtype)


def start(given: Tensor | None, size: int, like: Tensor) -> Tensor:
    if given is None:
        return some_vector(size, like)
    vector = given.detach().to(like.dtype)
    unit: Tensor = vector / norm(vector)
    return unit


def some_vector(size: int, like: Tensor) -> Tensor:
    """A unit vector with no direction of its own, the same each time."""
    # a generator of its own: the user's random numbers are not shifted
    generator = torch.Generator("cpu").manual_seed(size)
    vector = torch.randn(size, dtype=like.dtype, generator=generator, device="cpu").to(like.device)
    unit: Tensor = vector / norm(vector).clamp_min(smallest_normal(vector))
    return unit


def scattered(like: Tensor) -> Tensor:
    """Vectors `(*, n)` of length one, about, with no structure, by a formula that any device has.

    Next to nothing of it in a start is enough to find what the last solution cannot lead to,
    where the map falls into parts: there, one part would be followed for ever.
    """
    n = like.shape[-1]
    places = torch.arange(n, dtype=like.dtype, device=like.device)
    waves: Tensor = torch.sin(places * (places + 1.0) * 0.7548776662)
    return waves * math.sqrt(2.0 / n)


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


def improve_on_cpu(M: Tensor, v: Tensor, iterations: int) -> tuple[Tensor, Tensor] | None:
    """What `improve_triple` gives for one matrix after a few iterations, at half its price.

    Its coefficients are numbers of Python, which cost the CPU less than small tensors do, and
    the vectors come from the recurrence of Golub and Kahan, for as long as rounding keeps
    them orthogonal. One more product with the adjoint gives the new `v`.

    None where that does not do: tensors elsewhere or traced, and a scale out of range.
    """
    if M.device.type != "cpu" or M.is_complex() or is_dynamo_compiling() or not is_plain():
        return None
    adjoint, w, z = M.t(), torch.mv(M, v), v
    alpha, beta = length_on_cpu(w), 1.0
    smallest, least = smallest_normal(M) ** 0.3, epsilon(M) ** 0.5 * alpha
    if not smallest < alpha < 1 / smallest:
        return None
    lefts, alphas, betas = [w], [alpha], []
    count = min(iterations, *M.shape)
    for k in range(1, count + 1):
        z = torch.addmv(z, adjoint, w, beta=-alpha / beta, alpha=1 / alpha)
        if k == 1:  # near the solution, little is left of it: what rounding makes of v goes
            z = torch.sub(z, v, alpha=torch.dot(v, z).item())
        beta = length_on_cpu(z)
        betas.append(beta)
        # z is made orthogonal to v alone, so that at first next to nothing of it is enough
        if k == count or not beta > (least if k > 1 else 8 * epsilon(M) * alpha):
            break
        w = torch.addmv(w, M, z, beta=-beta / alpha, alpha=1 / beta)
        alpha = length_on_cpu(w)
        if not alpha > least:
            break
        lefts.append(w)
        alphas.append(alpha)
    w = lefts[0]  # what ended the loop may be rounding alone
    if len(lefts) > 1:
        factors = [y / a for y, a in zip(leading_of_bidiagonal(alphas, betas), alphas, strict=True)]
        w = lefts[0] * factors[0]
        for left, factor in zip(lefts[1:], factors[1:], strict=True):
            w.add_(left, alpha=factor)
    u = w.mul_(1 / length_on_cpu(w)) if len(lefts) > 1 else w / length_on_cpu(w)
    v = torch.mv(adjoint, u)
    return u, v.mul_(1 / length_on_cpu(v))


def length_on_cpu(x: Tensor) -> float:
    """The length of a real vector of moderate scale, faster than `vector_norm` is called."""
    return math.sqrt(torch.dot(x, x).item())


def leading_of_bidiagonal(alphas: list[float], betas: list[float]) -> list[float]:
    """The leading left singular vector of a matrix with `alphas` and, right of them, `betas`.

    It is the leading eigenvector of a tridiagonal matrix. Newton's method finds the largest
    eigenvalue from above, where the pivots of an elimination from the bottom are positive; the
    vector is their product. LAPACK would take longer to be called for so few numbers.
    """
    diagonal = [a * a + b * b for a, b in zip(alphas, betas, strict=True)]
    beside = [a * b for a, b in zip(alphas[1:], betas, strict=False)]
    last = len(beside)
    around = [0.0, *beside, 0.0]  # of the rows, as in Gershgorin's circles
    value = max(d + around[i] + around[i + 1] for i, d in enumerate(diagonal))
    least = 1e-16 * value
    pivots = [0.0] * (last + 1)
    for _ in range(60):
        pivot = max(value - diagonal[last], least)
        growth = 1.0
        pivots[last], slope = pivot, 1 / pivot
        for i in range(last - 1, -1, -1):
            ratio = beside[i] / pivot
            growth = 1 + ratio * ratio * growth
            pivot = max(value - diagonal[i] - beside[i] * ratio, least)
            pivots[i] = pivot
            slope += growth / pivot
        value -= 1 / slope
        if pivot <= least or slope * value > 1e15:
            break
    vector = [1.0]
    for e, pivot in zip(beside, pivots[1:], strict=True):
        vector.append(vector[-1] * e / pivot)
    return vector


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
    is_found = torch.isfinite(length)  # or the map is not finite, and must not spoil the state
    return torch.where(is_found, left / norm(left), u), torch.where(is_found, image / length, v)


def orthogonal_part(w: Tensor, basis: List[Tensor]) -> tuple[Tensor, Tensor]:  # noqa: UP006
    """The direction of what of `w` is orthogonal to the orthonormal `basis`, and its length.

    Zero where rounding alone leaves something: the vectors have met all that they will.
    """
    rows = torch.stack(basis, -2)
    is_double = w.dtype == torch.float64 or w.dtype == torch.complex128
    noise = norm(w) * (1e-15 if is_double else 5e-7)
    for _ in range(2):  # once is not enough where little is left
        w = minus_times(w, rows.mT, times(rows.conj(), w))
    length = norm(w)
    return w / torch.where(length > noise, length, math.inf), length


def leading_combination(products: List[Tensor]) -> tuple[Tensor, Tensor]:  # noqa: UP006
    """How to combine vectors for the longest result: all squared lengths, and the coefficients."""
    rows = torch.stack(products, -2)
    gram = rows.conj() @ rows.mT
    finite = torch.where(gram.isfinite(), gram, 0.0)  # eigh raises otherwise
    squares, combinations = torch.linalg.eigh(finite)
    combination = combinations[..., -1]
    first = combination[..., :1]
    # the sign is that of power iteration: the next solution is near the last one, not its negative
    return squares, combination * (first.sgn() + (first == 0)).conj()


def is_converged(products: list[Tensor], length: Tensor, tolerance: float) -> bool:
    """Whether the relative error of the leading value is below `tolerance`, as far as one knows.

    By Temple's bound: the squared residual over the distance to the next value. Both are
    those of the squared map. `length` is the size of what the next iteration adds.
    """
    squares, combination = leading_combination(products)
    largest = squares[..., -1]
    residual = length.reshape(largest.shape) * combination[..., -1].abs() / largest
    gap = (1 - squares[..., -2] / largest).clamp_min(epsilon(largest))
    error = torch.minimum(residual, residual.square() / gap)
    return bool((torch.nan_to_num(error, 0.0) <= tolerance / 4).all())


# for vectors, and batches of them: with the fewest operations where there is one


def unless_zero(x: Tensor, otherwise: Tensor) -> Tensor:
    """`x` and next to nothing of `otherwise`, whose direction stays where `x` is zero.

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
