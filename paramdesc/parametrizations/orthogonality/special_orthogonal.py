"""Rotations: orthogonal matrices with determinant one."""

import torch
from torch import Tensor

from paramdesc.linalg.orthogonality import is_orthonormal, non_orthonormality, renewed
from paramdesc.linalg.precision import widened
from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.orthogonality.orthogonal import Orthogonal

__all__ = ["SpecialOrthogonal"]


class SpecialOrthogonal(Orthogonal):
    """Make `layer.weight` a rotation: `Yᵀ Y = I` and `det Y = 1`.

    Shapes `(*, n, n) -> (*, n, n)`, real. Maps, base point and cost are those of `Orthogonal`,
    without `"polar"`, whose determinant changes sign where its original is singular.

    Assignment and registration keep a rotation as it is and replace any other matrix with the
    nearest one in the Frobenius norm: its polar factor if that has determinant one, and otherwise
    the polar factor with the direction of the smallest singular value reversed.

    Args:
        orthogonal_map: `"cayley"`, `"matrix_exp"` or `"householder"`.
        trivialization: whether to use a base point, see `Orthogonal`.
        rebase: the number of training steps after which the base point moves; None for never.
        strict: whether to reject a matrix that is not a rotation instead of replacing it.

    Raises:
        ValueError: if the matrices are complex or not square, and as in `Orthogonal`.

    Source: W. Kabsch, *A discussion of the solution for the best rotation to relate two sets of
    vectors*, Acta Cryst. A34 (1978); for the maps, see `Orthogonal`.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", SpecialOrthogonal())
    >>> round(torch.linalg.det(linear.weight).item(), 5)
    1.0
    """

    constraint = "a rotation"

    def __init__(
        self,
        orthogonal_map: str = "cayley",
        *,
        trivialization: bool = True,
        rebase: int | None = 50,
        strict: bool = False,
    ) -> None:
        super().__init__(
            orthogonal_map, trivialization=trivialization, rebase=rebase, strict=strict
        )
        if orthogonal_map == "polar":
            raise ValueError(
                "the determinant of the polar factor can change its sign in training: use "
                "'cayley', 'matrix_exp' or 'householder', or Orthogonal('polar')."
            )

    def check(self, X: Tensor) -> None:
        check_square(X, "rotation")
        if X.is_complex():
            raise ValueError(
                f"rotations are real. Got {X.dtype}: use Orthogonal for unitary matrices."
            )

    def nearest(self, Y: Tensor) -> Tensor:
        W = widened(Y)
        if is_orthonormal(W, 10.0) and not bool((determinant_sign(W) < 0).any()):
            return W
        U, singular, Vh = torch.linalg.svd(W)
        signs = torch.ones_like(singular)
        if W.shape[-1] > 0:
            signs[..., -1] = determinant_sign(U) * determinant_sign(Vh)
        return renewed((U * signs.unsqueeze(-2)) @ Vh)

    def deviation(self, Y: Tensor) -> Tensor:
        """The Frobenius norm of `Yᵀ Y - I`, or two if that is less and the determinant negative."""
        if Y.numel() == 0:
            return torch.zeros((), device=Y.device)
        mirrored = (determinant_sign(widened(Y)) < 0).any()
        error = non_orthonormality(Y)
        return torch.where(mirrored, error.clamp(min=2.0), error)


def determinant_sign(X: Tensor) -> Tensor:
    """The sign of the determinant, 1 or -1, of matrices that are orthogonal or nearly so."""
    sign: Tensor = torch.linalg.slogdet(X)[0]
    return sign
