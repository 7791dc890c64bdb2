"""Finding the factors of an orthogonal convolution, or of one near any other kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.polar import nearest_orthonormal
from paramdesc.linalg.precision import epsilon, in_double
from paramdesc.parametrizations.lipschitz.projectors import expanded, multiplied, reduced

__all__ = ["factorized"]

Order = list[tuple[int, bool]]
SWEEPS = 5
"""How often all factors are improved in turn, at most. More would gain a few percent."""
LEAST_GAIN = 1e-3
"""The relative gain of a sweep below which the search ends."""


@torch.no_grad()
def factorized(K: Tensor, order: Order) -> tuple[Tensor, Tensor]:
    """`M` and `bases` such that `multiplied(M, bases, order)` is `K` or near it.

    First, the factors are split off one by one, from the outside: `I - P + P z` is a factor of `K`
    if `P` maps the first coefficient of `K` to zero and keeps the last, so `P` is chosen as the
    projection of its rank that comes closest to this. The rest is replaced by the nearest matrix
    with orthonormal columns or rows. If the product differs from `K`, each factor in turn is
    replaced by the best one for the others, until the gain is small.

    Shapes `(groups, c, *taps, n)` for `K` and `M`, `(groups, factors, c, c // 2)` for `bases`, in
    double precision.
    """
    exact = in_double(K)
    size = torch.linalg.vector_norm(exact).item()
    M, bases = taken_apart(exact, order, is_precise=False)
    error = distance(exact, M, bases, order)
    if not order or size == 0 or not error > 20 * epsilon(K) * size:
        return M, bases
    if error < 0.1 * size:  # it may be such a product, with coefficients of very different sizes
        again = taken_apart(exact, order, is_precise=True)
        found = distance(exact, *again, order)
        if found < error:
            error, (M, bases) = found, again
    if error > 100 * epsilon(K) * size:
        return searched(K, M.to(K.dtype), bases.to(K.dtype), order)
    return M, bases


def searched(K: Tensor, M: Tensor, bases: Tensor, order: Order) -> tuple[Tensor, Tensor]:
    """Better factors, in the precision of `K`, returned in double precision."""
    gain = correlation(K, multiplied(M, bases, order))
    for _ in range(SWEEPS):
        M, bases = improved(K, M, bases, order)
        last, gain = gain, correlation(K, multiplied(M, bases, order))
        if not gain - last > LEAST_GAIN * abs(gain):
            break
    bases = in_double(bases)
    return nearest(in_double(M)), torch.linalg.qr(bases)[0] if bases.numel() else bases


def distance(K: Tensor, M: Tensor, bases: Tensor, order: Order) -> float:
    return float(torch.linalg.vector_norm(K - multiplied(M, bases, order)))


def correlation(A: Tensor, B: Tensor) -> float:
    return (A.conj() * B).sum().real.item()


def nearest(E: Tensor) -> Tensor:
    """The nearest kernel whose matrix `(c taps) x n` has orthonormal columns or rows."""
    return nearest_orthonormal(E.flatten(1, -2)).reshape(E.shape)


def leading(D: Tensor, r: int, shifts_rest: bool) -> Tensor:
    """The basis of the best projection for a factor, given the gain of each shift."""
    vectors: Tensor = torch.linalg.eigh((D + D.mH) / 2)[1]
    return vectors[..., :r] if shifts_rest else vectors[..., vectors.shape[-1] - r :]


def taken_apart(K: Tensor, order: Order, *, is_precise: bool) -> tuple[Tensor, Tensor]:
    """The matrix and the bases, found from the outside to the inside."""
    c = K.shape[1]
    bases = []
    for axis, shifts_rest in order:
        first = K.select(axis, 0).flatten(2)
        last = K.select(axis, K.shape[axis] - 1).flatten(2)
        size = absolute if is_precise else squared
        U = leading(size(last) - size(first), c // 2, shifts_rest)
        bases.append(U)
        K = reduced(K, U, axis, shifts_rest)
    none = K.new_empty(K.shape[0], 0, c, c // 2)
    return nearest(K), torch.stack(bases, 1) if bases else none


def squared(A: Tensor) -> Tensor:
    """`A Aᴴ`."""
    return A @ A.mH


def absolute(A: Tensor) -> Tensor:
    """The square root of `A Aᴴ`, in which rounding does not swamp small singular values."""
    U, S, _ = torch.linalg.svd(A, full_matrices=False)
    root: Tensor = (U * S.unsqueeze(-2)) @ U.mH
    return root


def improved(K: Tensor, M: Tensor, bases: Tensor, order: Order) -> tuple[Tensor, Tensor]:
    """Replace each factor, from the outside, by the best one for the others."""
    r = bases.shape[-1]
    inner = [M]
    for i in range(len(order) - 1, 0, -1):
        inner.append(expanded(inner[-1], bases[:, i], *order[i]))
    found, E = [], K
    for axis, shifts_rest in order:
        R = inner.pop().flatten(2)
        n = E.shape[axis] - 1
        change = (E.narrow(axis, 1, n) - E.narrow(axis, 0, n)).flatten(2)
        U = leading(change @ R.mH, r, shifts_rest)
        found.append(U)
        E = reduced(E, U, axis, shifts_rest)
    return nearest(E), torch.stack(found, 1)
