"""The polar factor, the nearest matrix with orthonormal columns."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.compiler import is_compiling

from paramdesc.linalg.algorithms import by
from paramdesc.linalg.devices import takes_algorithms
from paramdesc.linalg.orthogonality import renewed
from paramdesc.linalg.polar_factor import is_orthonormal_soon, polar_factor
from paramdesc.linalg.polar_on_gpu import Polar
from paramdesc.linalg.polar_steps import approached, eye_like, gentle_steps, positive
from paramdesc.linalg.precision import smallest_normal, widened, without_autocast
from paramdesc.linalg.shapes import check_matrix
from paramdesc.torch_internals.mode import is_plain

__all__ = ["nearest_orthonormal", "polar"]


def polar(X: Tensor, complete: bool = False) -> Tensor:
    """`U Vᴴ` of the singular value decomposition `X = U S Vᴴ`, in matrix products alone.

    Shapes `(*, m, n) -> (*, m, n)`. The columns are orthonormal, or the rows if there are fewer
    of them, to rounding for sizes up to 1024. Half precision is computed in float32.

    The value differs from the formula by about the condition number times eps, which is the
    accuracy to which a rounded matrix determines it. Eager code on a CPU supports every condition
    number: for a matrix that is singular to rounding, the value is one of its nearest orthonormal
    matrices. On a GPU and in compiled, traced, scripted or transformed code, where nothing may
    depend on values, condition numbers may be up to 1e6, or 1e12 in double precision. A value that
    would not be orthonormal there is NaN.

    The value of a zero matrix is zero, or the identity with `complete`; subnormal numbers count
    as zero. If an entry is NaN or infinite, the value of its matrix is NaN.

    The gradient is that of the formula. It is as large as the inverse of the sum of the two
    smallest singular values, or of the smallest alone if `X` is complex or not square. It is
    finite for singular matrices.

    Polynomials of degree five are applied in turn to the singular values, at first in
    `[0.001, 1]` after a division by a bound of the norm. If some are smaller, they become about
    7000 times as large, and the polynomials are applied again, as often as needed. Where nothing
    may depend on numbers, more polynomials are applied at first.

    Cost, if there are no fewer rows than columns: 18 products of `m x n` and `n x n` matrices
    and 8 of `n x n` ones, backward 13 and 32; twice that for condition numbers between 1e3 and
    1e6. On a GPU and in compiled code 28 and 13, or 48 and 23 in double precision. Scripts,
    traces and function transforms 38 and 18, or 64 and 31, and backward twice as much, for the
    derivative is left to autograd. On a GPU, the host starts 131 operations for a square matrix in
    single precision, backward pass included, and 152 for another. Half precision is iterated in
    half precision there, up to the last two polynomials.

    Args:
        X: the matrices.
        complete: whether a zero matrix has the value and the gradient of the identity.

    Source: N. Amsel, D. Persson, C. Musco, R. Gower, *The Polar Express: optimal matrix sign
    methods and their application to the Muon algorithm*, 2025, algorithm 1; the coefficients were
    recomputed with the Remez exchange algorithm.

    >>> from paramdesc.linalg.polar import polar
    >>> J = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    >>> torch.allclose(polar(J @ torch.diag(torch.tensor([3.0, 2.0]))), J, atol=1e-6)
    True
    """
    check_matrix(X, "orthonormal")
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return oriented(X, complete)
    if takes_algorithms(X) and X.numel() > 0:
        return by(Polar, X, complete)
    with without_autocast(X):
        return oriented(X, complete)


def oriented(X: Tensor, complete: bool) -> Tensor:
    if X.shape[-2] < X.shape[-1]:
        return tall(widened(X).mH, complete).mH.resolve_conj().to(X.dtype)
    return tall(widened(X), complete).to(X.dtype)


def tall(X: Tensor, complete: bool) -> Tensor:
    if X.numel() == 0:
        return X
    # far from overflow first: the polynomials begin with a bound that is within n^(1/8) of the norm
    size = X.detach().abs().amax(dim=[-2, -1], keepdim=True)
    X = X / positive(size)
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return where_none_may_look(X, size, complete)
    if is_compiling() or is_plain():  # in this order: Dynamo cannot follow `is_plain`
        return settled(polar_factor(X, size, complete), X)
    return where_none_may_look(X, size, complete)


def where_none_may_look(X: Tensor, size: Tensor, complete: bool) -> Tensor:
    """The value for scripts, traces and function transforms, by operations of autograd alone."""
    is_zero = size <= smallest_normal(size)
    if complete:
        X = X + eye_like(X) * is_zero
    is_double = X.dtype == torch.float64 or X.dtype == torch.complex128
    Y, inner = approached(X, gentle_steps(is_double))
    return torch.where(is_zero | is_orthonormal_soon(inner), settled(Y, X), math.nan)


def settled(Y: Tensor, X: Tensor) -> Tensor:
    """`Y`, moved towards the polar factor of `X`, from which rounding has moved it away.

    At that factor `X = Y P` with `P` the Hermitian part of `Yᴴ X`. What is missing says how to
    move, exactly so if the singular values of `X` are equal. There nothing changes, so the
    gradient is left as it is.
    """
    rough = Y.detach()
    middle = rough.mH @ X.detach()
    size = positive(middle.abs().sum(-1, keepdim=True).amax(-2, keepdim=True))
    return Y + (X.detach() - rough @ ((middle + middle.mH) / 2)) / size


@torch.no_grad()
def nearest_orthonormal(Y: Tensor) -> Tensor:
    """The matrix with orthonormal columns, or rows if they are fewer, nearest to `Y`.

    Nearest in the Frobenius norm. By a singular value decomposition, of any condition;
    without gradient. Where `Y` leaves a choice, as the zero matrix does, one of the
    nearest. Shapes `(*, m, n) -> (*, m, n)`.
    """
    U, _, Vh = torch.linalg.svd(widened(Y), full_matrices=False)
    Q = U @ Vh
    # LAPACK leaves more than 20 eps sqrt(k) for large matrices
    Q = renewed(Q.mH).mH if Q.shape[-2] < Q.shape[-1] else renewed(Q)
    return Q.resolve_conj().to(Y.dtype)
