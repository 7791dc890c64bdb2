"""The polar factor, the nearest matrix with orthonormal columns."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.orthogonality import renewed
from paramdesc.linalg.precision import smallest_normal, widened, without_autocast
from paramdesc.linalg.shapes import check_matrix

__all__ = ["nearest_orthonormal", "polar"]


def polar(X: Tensor) -> Tensor:
    """`U Vᴴ` of the singular value decomposition `X = U S Vᴴ`, in matrix products alone.

    Shapes `(*, m, n) -> (*, m, n)`. The columns are orthonormal, or the rows if there are
    fewer of them, to rounding for condition numbers up to 400 and sizes up to 1024. Beyond
    that, directions in which `X` is small fall short; of the zero matrix the value is zero.
    Half precision is computed in float32.

    Polynomials of degree five are applied in turn to the singular values. Each brings them as
    close to one as its degree can from the interval in which the one before leaves them, at
    first `[0.001, 1]` after a division by a bound of the norm. Cost, if there are no fewer rows
    than columns: 18 products of `m x n` and `n x n` matrices and 8 of `n x n` ones; backward
    twice as much.

    Source: N. Amsel, D. Persson, C. Musco, R. Gower, *The Polar Express: optimal matrix sign
    methods and their application to the Muon algorithm*, 2025, algorithm 1; the
    coefficients are computed anew, by Remez' exchange.

    >>> from paramdesc.linalg.polar import polar
    >>> J = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    >>> torch.allclose(polar(J @ torch.diag(torch.tensor([3.0, 2.0]))), J, atol=1e-6)
    True
    """
    check_matrix(X, "orthonormal")
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return oriented(X)
    with without_autocast(X):
        return oriented(X)


def oriented(X: Tensor) -> Tensor:
    if X.shape[-2] < X.shape[-1]:
        return tall(widened(X).mH).mH.resolve_conj().to(X.dtype)
    return tall(widened(X)).to(X.dtype)


def tall(X: Tensor) -> Tensor:
    if X.numel() == 0:
        return X
    # far from overflow first, then by a bound that is within n^(1/8) of the norm
    X = X / positive(X.abs().amax(dim=[-2, -1], keepdim=True))
    Y = X
    inner = Y.mH @ Y
    square = inner @ inner
    bound = positive(torch.linalg.vector_norm(square, dim=[-2, -1], keepdim=True).sqrt())
    Y, inner, square = Y / bound.sqrt(), inner / bound, square / bound.square()
    Y = 8.470328803848073 * Y + Y @ (-25.108074706661885 * inner + 18.62927559911802 * square)
    Y = quintic(Y, 4.182834183293943, -3.108701109889242, 0.5806066813500492)
    Y = quintic(Y, 3.9618572789615976, -2.9540637463593775, 0.5629761179538963)
    Y = quintic(Y, 3.286586217027956, -2.4647201345312775, 0.5073576938614541)
    Y = quintic(Y, 2.273749994434036, -1.644660367908067, 0.4161909274978861)
    Y = quintic(Y, 1.8887161973518343, -1.2651572253386103, 0.37651892555749505)
    # from here on, what rounding did shall shrink too: the limit, which has slope zero at one
    Y = quintic(Y, 1.875, -1.25, 0.375)
    Y = quintic(Y, 1.875, -1.25, 0.375)
    return settled(Y, X)


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


def quintic(Y: Tensor, first: float, third: float, fifth: float) -> Tensor:
    """`first s + third s³ + fifth s⁵` of the singular values `s`."""
    inner = Y.mH @ Y
    return first * Y + Y @ (third * inner + fifth * (inner @ inner))


def positive(size: Tensor) -> Tensor:
    """`size` as a constant to divide by: one where it vanishes. The polar factor has no scale."""
    size = size.detach()
    return torch.where(size > smallest_normal(size), size, torch.ones_like(size))


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
