"""Subspaces, represented by an orthonormal basis."""

import torch
from torch import Tensor

from paramdesc.linalg.orthogonality import cayley_across, is_orthonormal
from paramdesc.linalg.polar import nearest_orthonormal
from paramdesc.linalg.precision import widened
from paramdesc.linalg.shapes import check_matrix
from paramdesc.parametrizations.orthogonality.tall import TallMatrices, base_like

__all__ = ["Grassmann"]


class Grassmann(TallMatrices):
    """Make the columns of `layer.weight` an orthonormal basis of a trainable subspace.

    If there are fewer rows than columns, the rows are the basis. Use it where only the subspace
    matters, as in projections `Y Yᴴ`: training moves the subspace, and never rotates the basis
    within it. Shapes `(*, m, n) -> (*, m, n)`; real and complex; half precision is computed in
    float32.

    The value is `(2 B + P) (I + Pᴴ P / 4)⁻¹ - B`, where `B` is the base point, which is the value
    of a zero original, and `P = X - B Bᴴ X` is the part of `X` orthogonal to its subspace. So the
    original has no gradient within the subspace. A square matrix spans the whole space, and does
    not change in training.

    Assignment and registration keep an orthonormal basis as it is and replace any other matrix with
    the nearest one in the Frobenius norm, its polar factor. The original becomes zero.

    Cost, forward: four products of `n x k` and `k x k` matrices and an inverse of size `k`.

    Args:
        rebase: the number of training steps after which the base point moves; None for never.
        strict: whether to reject a matrix whose columns, or rows, are not orthonormal instead of
            replacing it.

    Raises:
        ValueError: if the weight is not a matrix; with `strict`, if the Frobenius norm of
            `Yᴴ Y - I` exceeds the tolerance.

    Source: for the tangents, A. Edelman, T. Arias, S. Smith, *The geometry of algorithms with
    orthogonality constraints*, SIAM J. Matrix Anal. Appl. 20 (1998), section 2.5; for the step, see
    `cayley_step` in `paramdesc.linalg`.

    >>> linear = register_parametrization(torch.nn.Linear(2, 5), "weight", Grassmann())
    >>> basis = linear.weight
    >>> projection = basis @ basis.T
    >>> torch.allclose(projection @ projection, projection, atol=1e-6)
    True
    """

    constraint = "orthonormal"

    def check(self, X: Tensor) -> None:
        check_matrix(X, "subspace")

    def tall(self, X: Tensor, base: Tensor | None) -> Tensor:
        return cayley_across(base_like(X, base), X)

    def start(self, Y: Tensor) -> Tensor:
        W = widened(Y)
        self.base = W.clone() if is_orthonormal(W, 10.0) else nearest_orthonormal(W)
        return torch.zeros_like(Y)
