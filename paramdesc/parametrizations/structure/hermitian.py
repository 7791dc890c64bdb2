"""Hermitian and skew-Hermitian matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.structure.mirrored import Mirrored
from paramdesc.parametrizations.structure.skew import skew
from paramdesc.parametrizations.structure.symmetric import symmetric

__all__ = ["Hermitian", "SkewHermitian"]


class Hermitian(Mirrored):
    """Make `layer.weight` Hermitian: `Y = triu(X, 1) + triu(X, 1)ᴴ + Re diag(X)`.

    Shapes `(*, n, n) -> (*, n, n)`, floating point or complex; for a real `X`, the value is that of
    `Symmetric`. The entries of `X` below the diagonal, and the imaginary parts on it, have no
    effect and get no gradient. Cost: four passes over the matrix.

    Assignment and registration keep a Hermitian matrix as it is and replace any other with the
    nearest one in the Frobenius norm, `(A + Aᴴ) / 2`.

    Args:
        strict: whether to reject a matrix that is not Hermitian instead of replacing it.

    Raises:
        ValueError: if the matrices are not square; with `strict`, if an assigned matrix is not
            Hermitian; the error's `deviation` is the largest difference from its conjugate
            transpose.

    Source: K. Fan, A. J. Hoffman, *Some metric inequalities in the space of matrices*,
    Proc. Amer. Math. Soc. 6 (1955), theorem 2.

    >>> layer = torch.nn.Linear(3, 3, dtype=torch.complex64)
    >>> layer = register_parametrization(layer, "weight", Hermitian())
    >>> bool((layer.weight == layer.weight.mH).all())
    True
    """

    constraint = "Hermitian"

    def check(self, X: Tensor) -> None:
        check_square(X, "Hermitian")

    def image(self, X: Tensor) -> Tensor:
        return X.mH

    def from_upper(self, X: Tensor) -> Tensor:
        if not X.is_complex():
            return symmetric(X)
        upper = X.triu(1)
        diagonal = X.diagonal(0, -2, -1).real.to(X.dtype)
        return upper + upper.mH + torch.diag_embed(diagonal)


class SkewHermitian(Mirrored):
    """Make `layer.weight` skew-Hermitian: `Y = triu(X, 1) - triu(X, 1)ᴴ + i Im diag(X)`.

    Skew-Hermitian matrices generate unitary matrices, and are `i` times Hermitian ones. Shapes
    `(*, n, n) -> (*, n, n)`, floating point or complex; for a real `X`, the value is that of
    `Skew`. The entries of `X` below the diagonal, and the real parts on it, have no effect and get
    no gradient. Cost: four passes over the matrix.

    Assignment and registration keep a skew-Hermitian matrix as it is and replace any other with the
    nearest one in the Frobenius norm, `(A - Aᴴ) / 2`.

    Args:
        strict: whether to reject a matrix that is not skew-Hermitian instead of replacing it.

    Raises:
        ValueError: if the matrices are not square; with `strict`, if an assigned matrix is not
            skew-Hermitian; the error's `deviation` is the largest modulus in `Y + Yᴴ`.

    Source: K. Fan, A. J. Hoffman, *Some metric inequalities in the space of matrices*,
    Proc. Amer. Math. Soc. 6 (1955), theorem 2, for `iA`.

    >>> layer = torch.nn.Linear(3, 3, dtype=torch.complex64)
    >>> layer = register_parametrization(layer, "weight", SkewHermitian())
    >>> bool((layer.weight == -layer.weight.mH).all())
    True
    """

    constraint = "skew-Hermitian"

    def check(self, X: Tensor) -> None:
        check_square(X, "skew-Hermitian")

    def image(self, X: Tensor) -> Tensor:
        return -X.mH

    def from_upper(self, X: Tensor) -> Tensor:
        if not X.is_complex():
            return skew(X)
        upper = X.triu(1)
        diagonal = X.diagonal(0, -2, -1)
        return upper - upper.mH + torch.diag_embed(diagonal - diagonal.real)
