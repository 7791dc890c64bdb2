"""Normal matrices, which have an orthonormal basis of eigenvectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramdesc.linalg.cayley import cayley
from paramdesc.linalg.differences import largest_entry
from paramdesc.linalg.orthogonality import renewed
from paramdesc.linalg.polar import nearest_orthonormal
from paramdesc.linalg.precision import epsilon, in_double, matmul, widened
from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.base_point import BasePoint

__all__ = ["Normal"]

ANGLE = 1.0
"""Of the combination that tells eigenvalues apart: its tangent is no ratio of integers."""


class Normal(BasePoint):
    """Make `layer.weight` normal, `Y Yᴴ = Yᴴ Y`: `Y = Q D Qᴴ`.

    `Q = base (2 (I - A / 2)⁻¹ - I)` is orthogonal, or unitary: `A` is skew-symmetric, or
    skew-Hermitian, with the entries of `X` above the diagonal, and the base point `base` is
    orthogonal or unitary too. If `X` is complex, `D` is its diagonal. If `X` is real, `D` has 2 x 2
    blocks on the diagonal:

    - `[[a, -b], [b, a]]`, with eigenvalues `a ± ib`, where the buffer `rotating` is true. `a` is
      the mean of the two diagonal entries of `X` there, and `b` is the entry of `X` in its place.
    - two real eigenvalues, the diagonal entries of `X`, where it is false.

    The other entries of `X` have no effect and get no gradient. So training changes eigenvalues and
    eigenvectors, but in the real case not the number of conjugate pairs.

    Shapes `(*, n, n) -> (*, n, n)`, floating point or complex. Half precision is computed in
    float32. Cost: one inverse and two products of this size.

    Assignment and registration set `base`, `rotating` and `X`, and keep a normal matrix up to
    rounding. Any other is replaced by a normal matrix nearby, because the nearest one has no closed
    form: `D` is then the part of `Qᴴ A Q` that has its form, where `Q` holds the eigenvectors of
    `cos(1) (A + Aᴴ) + sin(1) i (A - Aᴴ)`, or of the same expression for the unitary polar factor of
    `A`, whichever is nearer. This takes a few eigendecompositions in double precision.

    Args:
        rebase: the number of training steps after which the base point moves; None for never.
        strict: whether to reject a matrix that is not normal instead of replacing it.

    Raises:
        ValueError: if the matrices are not square; with `strict`, if an assigned matrix is not
            normal; the error's `deviation` is the largest entry of `Y Yᴴ - Yᴴ Y`.

    Source: for the combination, H. He, D. Kressner, *A simple, randomized algorithm for
    diagonalizing normal matrices*, arXiv 2405.18399 (2024), algorithm 1; for the real form, R.
    Horn, C. Johnson, *Matrix Analysis*, 2nd ed., theorem 2.5.8.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Normal())
    >>> Y = linear.weight
    >>> torch.allclose(Y @ Y.T, Y.T @ Y, atol=1e-5)
    True
    """

    constraint = "normal"
    batching = "leading"

    def __init__(self, *, rebase: int | None = 50, strict: bool = False) -> None:
        super().__init__(rebase=rebase, strict=strict)
        self.register_buffer("rotating", None)

    def check(self, X: Tensor) -> None:
        check_square(X, "normal")

    def forward(self, X: Tensor) -> Tensor:
        self.check(X)
        wide = widened(X)
        Q, rotating = self.basis(wide), self.rotating
        if not isinstance(rotating, Tensor):
            rotating = torch.ones([X.shape[-1] // 2], dtype=torch.bool, device=X.device)
        return matmul(times_blocks(Q, wide, rotating), Q.mH).to(X.dtype)

    def basis(self, X: Tensor) -> Tensor:
        """`Q`."""
        Q, base = rotation(X), self.base
        return Q if base is None else matmul(base.clone().to(Q.dtype), Q)

    def recenter(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """The entries that give `D`, with `Q` as base point."""
        return X.tril(), renewed(self.basis(widened(X)))

    def extra_repr(self) -> str:
        return ", ".join(self.shown_rebase() + ["strict=True"] * self.strict)

    def start(self, Y: Tensor) -> Tensor:
        wide = in_double(Y)
        candidates = torch.stack([wide, nearest_orthonormal(wide)])
        basis_of = complex_basis if Y.is_complex() else real_basis
        Q, rotating = basis_of(candidates, 4 * epsilon(Y))
        X = blocks(Q.mH @ wide @ Q, rotating)
        # the nearer one is that which keeps more of the norm
        norms = retained(X, rotating)
        is_first = (norms[0] >= norms[1])[..., None]
        self.base = torch.where(is_first[..., None], Q[0], Q[1]).to(widened(Y).dtype)
        self.rotating = torch.where(is_first, rotating[0], rotating[1])
        return torch.where(is_first[..., None], X[0], X[1]).to(Y.dtype)

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest entry of `Y Yᴴ - Yᴴ Y`."""
        wide = widened(Y)
        return largest_entry(matmul(wide, wide.mH) - matmul(wide.mH, wide))

    def tolerance(self, Y: Tensor) -> float:
        """Rounding of the products grows with the squared norm."""
        if Y.numel() == 0:
            return 0.0
        norm = torch.linalg.matrix_norm(widened(Y))
        return 20 * epsilon(Y) * largest_entry(norm).item() ** 2


def rotation(X: Tensor) -> Tensor:
    """`2 (I - A / 2)⁻¹ - I`, orthogonal, where `A` is skew with the upper triangle of `X`."""
    A = X.triu(1)
    return cayley(A - A.mH)


def times_blocks(Q: Tensor, X: Tensor, rotating: Tensor) -> Tensor:
    """`Q D`, where `X` holds `D`."""
    diagonal = X.diagonal(0, -2, -1)
    if X.is_complex():
        return Q * diagonal.unsqueeze(-2)
    paired = X.shape[-1] // 2 * 2
    a, c = diagonal[..., 0:paired:2], diagonal[..., 1:paired:2]
    b = X.diagonal(-1, -2, -1)[..., ::2]
    mean = (a + c) / 2
    a, c = torch.where(rotating, mean, a), torch.where(rotating, mean, c)
    b = torch.where(rotating, b, torch.zeros_like(b))
    a, b, c = a.unsqueeze(-2), b.unsqueeze(-2), c.unsqueeze(-2)
    left, right = Q[..., 0:paired:2], Q[..., 1:paired:2]
    columns = torch.stack([left * a + right * b, right * c - left * b], -1).flatten(-2)
    return torch.cat([columns, Q[..., paired:] * diagonal[..., None, paired:]], -1)


def blocks(T: Tensor, rotating: Tensor) -> Tensor:
    """`X` that holds the `D` nearest to `T`, with zeros elsewhere."""
    X = torch.diag_embed(T.diagonal(0, -2, -1))
    if T.is_complex():
        return X
    difference = T.diagonal(-1, -2, -1) - T.diagonal(1, -2, -1)
    b = difference[..., ::2] / 2 * rotating
    # between the blocks there is nothing
    below = torch.stack([b, torch.zeros_like(b)], -1).flatten(-2)[..., : difference.shape[-1]]
    return X + torch.diag_embed(below, -1)[..., : X.shape[-1], : X.shape[-1]]


def retained(X: Tensor, rotating: Tensor) -> Tensor:
    """The norm of the `D` that `X` holds."""
    eye = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    norm: Tensor = torch.linalg.matrix_norm(times_blocks(eye.expand_as(X), X, rotating))
    return norm


def eigenvectors(Y: Tensor) -> Tensor:
    """A unitary `V` such that `Vᴴ Y V` is diagonal, for a normal complex `Y`.

    They are the eigenvectors of a Hermitian matrix. Where two of its eigenvalues are much closer
    than those of `Y`, rounding mixes their vectors, which one step of perturbation theory corrects.
    """
    hermitian = math.cos(ANGLE) * (Y + Y.mH) + math.sin(ANGLE) * 1j * (Y - Y.mH)
    V = torch.linalg.eigh(hermitian).eigenvectors
    T = V.mH @ Y @ V
    eigenvalues = T.diagonal(0, -2, -1)
    gaps = eigenvalues.unsqueeze(-2) - eigenvalues.unsqueeze(-1)
    product, squared = gaps.conj() * T + gaps * T.mH, 2 * (gaps * gaps.conj()).real
    # larger than that it is no perturbation, but equal eigenvalues
    is_small = product.abs() < 0.01 * squared
    mixed = torch.where(is_small, product / torch.where(is_small, squared, 1), 0)
    result: Tensor = torch.linalg.qr(V + V @ mixed).Q
    return result


def complex_basis(Y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The eigenvectors of a normal `Y`, and a mask without rotating blocks."""
    rotating = torch.zeros(*Y.shape[:-2], Y.shape[-1] // 2, dtype=torch.bool, device=Y.device)
    return eigenvectors(Y), rotating


def real_basis(Y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """An orthogonal `Q` such that `Qᵀ Y Q` is block diagonal, and which blocks rotate.

    Eigenvalues whose imaginary part is below `eps` times the norm count as real.
    """
    n = Y.shape[-1]
    norm = torch.linalg.matrix_norm(Y)[..., None]
    V = eigenvectors(Y.to(torch.complex128))
    imaginary = (V.conj() * (Y.to(V.dtype) @ V)).sum(-2).imag
    # an eigenvector of a pair is orthogonal to its conjugate, that of a real eigenvalue is it
    is_pair = (imaginary > eps * norm) & ((V * V).sum(-2).abs() < 0.5)
    imaginary, order = torch.where(is_pair, imaginary, 0).sort(-1, descending=True)
    rotating = (imaginary > 0)[..., : n // 2]
    V = V.take_along_dim(order.unsqueeze(-2), -1)[..., : n // 2]
    V = torch.where(rotating.unsqueeze(-2), V, 0)
    planes = torch.nn.functional.pad(torch.view_as_real(V).flatten(-2), (0, n % 2))
    Q = torch.linalg.qr(planes).Q
    # the rest, on which Y is symmetric, is rotated to the eigenvectors, and the planes keep their
    # places, which come first
    is_left = ~torch.nn.functional.pad(rotating.repeat_interleave(2, -1), (0, n % 2))
    T = Q.mT @ (Y + Y.mT) @ Q
    T = torch.where(is_left.unsqueeze(-1) & is_left.unsqueeze(-2), T, 0)
    places = norm * torch.linspace(-6, -4, n, dtype=Y.dtype, device=Y.device)
    T = T + torch.diag_embed(torch.where(is_left, 0, places))
    return Q @ torch.linalg.eigh(T).eigenvectors, rotating
