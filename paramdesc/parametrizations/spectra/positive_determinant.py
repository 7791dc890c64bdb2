"""Invertible matrices that preserve orientation."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import epsilon, widened
from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.spectra.polar_form import PolarForm, check_real
from paramdesc.parametrizations.spectra.positive_definite import definite, hermitian_root

__all__ = ["PositiveDeterminant"]


class PositiveDeterminant(PolarForm):
    """Make `layer.weight` invertible with positive determinant: `Y = P Q B`, a polar form.

    `B` is the rotation in the polar form of the last assigned matrix. `Q = cayley(2 K)` rotates
    further, and `P = H² + floor I` stretches, with the symmetric part `H` and the skew-symmetric
    part `K` of `X = H + K`. The singular values of `Y` are at least `floor`, up to rounding. The
    map reaches every matrix with such singular values and positive determinant, except those whose
    rotation is half a turn away from `B` in some plane; these are reached after the base point has
    moved.

    Shapes `(*, n, n) -> (*, n, n)`, real; half precision is computed in float32. The cost is
    four products of `n x n` matrices, one of them for an inverse, and five for the gradient.

    Assignment and registration keep a matrix with positive determinant. In a matrix with negative
    determinant, the direction of the smallest singular value is reversed, which keeps the singular
    values. Then singular values less than `floor` are raised to it.

    Args:
        floor: the smallest allowed singular value, positive.
        rebase: the number of training steps after which the base point moves; None for never.
        strict: whether to reject a matrix that is not in the set instead of replacing it.

    Raises:
        ValueError: if the matrices are not square or not real, or `floor` is not positive; with
            `strict`, if the determinant of an assigned matrix is not positive, or a singular value
            is too small; the error's `deviation` is its distance from the set in the spectral norm.

    Source: N. J. Higham, *Functions of Matrices* (SIAM, 2008), theorem 8.1, for the polar form.

    >>> linear = torch.nn.Linear(3, 3)
    >>> linear = register_parametrization(linear, "weight", PositiveDeterminant())
    >>> bool(torch.linalg.det(linear.weight) > 0)
    True
    """

    constraint = "of positive determinant"

    def __init__(
        self, floor: float = 1e-6, *, rebase: int | None = 50, strict: bool = False
    ) -> None:
        super().__init__(floor, rebase=rebase, strict=strict)

    def check(self, X: Tensor) -> None:
        check_square(X, "invertible")
        check_real(X, "of positive determinant")

    def stretch(self, H: Tensor) -> Tensor:
        return definite(H, self.floor)

    def root(self, S: Tensor, U: Tensor) -> Tensor:
        return hermitian_root(S, U, self.floor)

    def deviation(self, Y: Tensor) -> Tensor:
        W = widened(Y)
        smallest = torch.linalg.svdvals(W)[..., -1:]
        signed = torch.where(torch.linalg.slogdet(W).sign.unsqueeze(-1) < 0, -smallest, smallest)
        return largest_entry((self.floor - signed).clamp(min=0))

    def tolerance(self, Y: Tensor) -> float:
        return 4 * epsilon(Y) * largest_entry(torch.linalg.matrix_norm(widened(Y))).item()
