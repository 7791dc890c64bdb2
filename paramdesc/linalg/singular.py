"""The largest singular value of matrices, with its vectors, by products with vectors alone."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.precision import widened, without_autocast
from paramdesc.linalg.shapes import check_matrix
from paramdesc.linalg.singular_iteration import improve_triple, norm, some_vector, times

__all__ = ["largest_singular_triple"]


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
    also where the singular value is a repeated one. The vectors are detached, as is the
    dependence of that gradient on `M`: their derivatives have no bound where singular values meet.

    Cost of an iteration: one product with `M` and one with `Mᴴ`.

    Args:
        M: the matrices.
        u, v: where to start, vectors of any length but zero; from an earlier solution, a few
            iterations are enough. By default fixed vectors.
        iterations: how many to make at most.
        tolerance: the relative error of `sigma` at which to stop, estimated from the residual and
            the distance to the second singular value, as far as they are known. With None, all
            iterations are made, and no value is read.

    Raises:
        ValueError: if `M` is not a matrix, or a number is out of its range.

    Source: G. H. Golub and W. Kahan, *Calculating the singular values and pseudo-inverse of a
    matrix*, SIAM J. Numer. Anal. 2 (1965), section 3, with full reorthogonalization.

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
