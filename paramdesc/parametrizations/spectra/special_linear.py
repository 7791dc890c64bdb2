"""Matrices with determinant one."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.precision import epsilon, matmul, smallest_normal, widened
from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.spectra.polar_form import PolarForm, check_real
from paramdesc.parametrizations.spectra.positive_definite import hermitian_root
from paramdesc.torch_internals.onnx import is_exporting_to_onnx, warn_of_onnx

__all__ = ["SpecialLinear"]


class SpecialLinear(PolarForm):
    """Give `layer.weight` determinant one: `Y = P Q B`, a polar form.

    `B` is the rotation in the polar form of the last assigned matrix, `Q = cayley(2 K)` is a
    rotation, and `P` is `H² + floor m I` divided by the `n`-th root of its determinant. Here `H` is
    the symmetric part and `K` the skew-symmetric part of `X = H + K`, and `m` is the mean of the
    eigenvalues of `H²`, so that the scale of `X` does not matter. The map reaches every matrix with
    determinant one whose singular values are at least `floor` times their mean, except those whose
    rotation is half a turn away from `B` in some plane; these are reached after the base point has
    moved.

    Shapes `(*, n, n) -> (*, n, n)`, real; half precision is computed in float32. Rounding the
    entries changes the determinant by about the precision times the condition number, which in half
    precision easily exceeds one. The cost is four products of `n x n` matrices, one of them for an
    inverse, and five for the gradient; a factorization for the determinant, and an inverse for its
    gradient.

    Assignment and registration keep a matrix with determinant one. Any other is replaced by one
    nearby, but not the nearest, for which there is no closed form: a negative determinant is made
    positive by reversing the direction of the smallest singular value, singular values less than
    the precision times the largest are raised to that, and the matrix is divided by the `n`-th root
    of its determinant. If singular values are less than `floor` allows, they are raised, and the
    matrix is divided once more.

    Args:
        floor: the smallest allowed singular value, relative to their mean; positive. It protects
            the determinant from rounding errors.
        rebase: the number of training steps after which the base point moves; None for never.
        strict: whether to reject a matrix of another determinant instead of replacing it.

    Raises:
        ValueError: if the matrices are not square or not real, or `floor` is not positive; with
            `strict`, if an assigned matrix has another determinant; the error's `deviation` is its
            difference from one.

    Source: see `PositiveDeterminant`.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", SpecialLinear())
    >>> round(torch.linalg.det(linear.weight).item(), 4)
    1.0
    """

    constraint = "of determinant one"

    def __init__(
        self, floor: float = 1e-4, *, rebase: int | None = 50, strict: bool = False
    ) -> None:
        super().__init__(floor, rebase=rebase, strict=strict)

    def check(self, X: Tensor) -> None:
        check_square(X, "special linear")
        check_real(X, "of determinant one")

    def stretch(self, H: Tensor) -> Tensor:
        n = max(1, H.shape[-1])
        # of any size: the square of a multiple neither overflows nor vanishes, and P has no scale
        size = torch.linalg.vector_norm(H.detach(), dim=[-2, -1], keepdim=True)
        H = H / torch.where(size > 0, size, torch.ones_like(size))
        mean = H.square().sum(-1).sum(-1) / n
        raised = torch.where(mean > 0, self.floor * mean, torch.ones_like(mean))
        P = matmul(H, H) + torch.diag_embed(raised.unsqueeze(-1).expand(H.shape[:-1]))
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            pass
        elif is_exporting_to_onnx():
            warn_of_onnx("SpecialLinear", "logarithms of determinants")
        scale: Tensor = (torch.linalg.slogdet(P)[1] / -n).exp()
        return scale.unsqueeze(-1).unsqueeze(-1) * P

    def root(self, S: Tensor, U: Tensor) -> Tensor:
        least = (epsilon(S) * S[..., :1]).clamp(min=smallest_normal(S))
        S = torch.maximum(S, least).log()
        S = (S - S.mean(-1, keepdim=True)).exp()
        least = self.floor / (1 + self.floor) * S.mean(-1, keepdim=True)
        return hermitian_root(S - least, U, 0.0)

    def deviation(self, Y: Tensor) -> Tensor:
        sign, logarithm = torch.linalg.slogdet(widened(Y))
        return largest_entry(sign * logarithm.exp() - 1)

    def tolerance(self, Y: Tensor) -> float:
        """The tolerance of the determinant: the precision times the condition number."""
        S = torch.linalg.svdvals(widened(Y))
        norms = torch.linalg.vector_norm(S, dim=-1) * torch.linalg.vector_norm(1 / S, dim=-1)
        return min(10 * epsilon(Y) * largest_entry(norms).item(), 0.5)
