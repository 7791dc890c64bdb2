"""Matrices whose singular values lie in a band around one."""

import math

import torch
from torch import Tensor

from paramdesc.linalg.orthogonality import cayley_step, renewed, skew_part, split, turned
from paramdesc.linalg.precision import epsilon, matmul, widened
from paramdesc.linalg.shapes import check_matrix
from paramdesc.linalg.solving import invert
from paramdesc.parametrizations.orthogonality.tall import TallMatrices, base_like
from paramdesc.torch_internals.onnx import is_exporting_to_onnx

__all__ = ["AlmostOrthogonal"]

MARGIN = 0.01
"""How far inside of the band projections end, in units of its width."""


class AlmostOrthogonal(TallMatrices):
    """Keep all singular values of `layer.weight` in a band, `[1 - band, 1 + band]`.

    Shapes `(*, m, n) -> (*, m, n)`; real and complex; half precision is computed in float32. A wide
    matrix is the conjugate transpose of a tall one. The value is the product `Q F` of a matrix with
    orthonormal columns, the value of `Orthogonal()` at `X`, and a Hermitian matrix with eigenvalues
    in the band: `F = c I + H (I + H² / 4r²)⁻¹`, where `c` is the center of the band, `r` is half
    its width, and `H` is the Hermitian part of `X`, or of `Bᴴ X` if `X` is not square. So a single
    original with the shape of the weight gives every matrix in the band, without a singular value
    decomposition. Eigenvalues `2 r` and `-2 r` of `H` give the ends of the band; larger ones give
    values inside again.

    Assignment and registration keep singular values in the band and move the others into it, to 1 %
    of its width from its end, because they would have no gradient at the end itself. Apart from
    this margin, the result is the nearest matrix in the Frobenius norm.

    Cost, forward and backward, for a square matrix: 9 products, and a QR decomposition of a matrix
    with twice as many rows; together the time of about 26 products.

    Args:
        band: the largest distance of a singular value from one, or a tuple with the ends of the
            band.
        rebase: the number of training steps after which the base point moves; None for never.
        strict: whether to reject a matrix with singular values outside the band instead of
            replacing it.

    Raises:
        ValueError: if the band is empty or reaches below zero, or the weight is not a matrix; with
            `strict`, if singular values are outside; the error's `deviation` is the largest
            distance from the band.

    >>> linear = register_parametrization(torch.nn.Linear(3, 5), "weight", AlmostOrthogonal(0.1))
    >>> values = torch.linalg.svdvals(linear.weight)
    >>> bool((0.9 <= values).all() and (values <= 1.1).all())
    True
    """

    constraint = "within the band"

    def __init__(
        self,
        band: float | tuple[float, float] = 0.1,
        *,
        rebase: int | None = 50,
        strict: bool = False,
    ) -> None:
        super().__init__(rebase=rebase, strict=strict)
        low, high = band if isinstance(band, tuple) else (1 - band, 1 + band)
        if not 0 <= low < high < math.inf:
            raise ValueError(
                "the band of singular values must not be empty or reach below zero. Got "
                f"band={band}: write a number in (0, 1], or two ends (low, high)."
            )
        self.low = float(low)
        self.high = float(high)

    def check(self, X: Tensor) -> None:
        check_matrix(X, "almost orthogonal")

    def tall(self, X: Tensor, base: Tensor | None) -> Tensor:
        Q, H = self.factors(X, base)
        width = self.high - self.low
        return (self.low + self.high) / 2 * Q + width * matmul(Q, bounded(H / width))

    def factors(self, X: Tensor, base: Tensor | None) -> tuple[Tensor, Tensor]:
        """`Q`, and `H` for the factor `F`."""
        base = base_like(X, base)
        if X.shape[-2] == X.shape[-1]:
            S = X
            Q = turned(base, S)
        else:
            S, P = split(base, X)
            Q = cayley_step(base, skew_part(S), P)
        return Q, (S + S.mH) / 2

    def recenter(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """The part that gives the singular values, with the orthogonal factor as base point."""
        is_wide, base = X.shape[-2] < X.shape[-1], self.base
        tall, base = widened(X), base
        if is_wide:
            tall, base = tall.mH, None if base is None else base.mH
        Q, H = self.factors(tall, base)
        Q = renewed(Q)
        new = H if Q.shape[-2] == Q.shape[-1] else matmul(Q, H)
        if is_wide:
            new, Q = new.mH, Q.mH
        return new.to(X.dtype), Q

    def start(self, Y: Tensor) -> Tensor:
        if Y.shape[-2] < Y.shape[-1]:
            X, base = self.inverse_of_tall(widened(Y).mH, self.tolerance(Y))
            self.base = base.mH.resolve_conj()
            return X.mH.resolve_conj().to(Y.dtype).contiguous()
        X, self.base = self.inverse_of_tall(widened(Y), self.tolerance(Y))
        return X.to(Y.dtype)

    def inverse_of_tall(self, Y: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """The original, and the base point that goes with it."""
        U, singular, Vh = torch.linalg.svd(Y, full_matrices=False)
        width, center = self.high - self.low, (self.low + self.high) / 2
        margin = MARGIN * width
        is_kept = (singular >= self.low - tolerance) & (singular <= self.high + tolerance)
        inside = singular.clamp(self.low + margin, self.high - margin)
        f = (2 / width * (torch.where(is_kept, singular, inside) - center)).clamp(-1, 1)
        h = width * f / (1 + (1 - f.square()).sqrt())
        H = (Vh.mH * h.unsqueeze(-2)) @ Vh
        base = U @ Vh
        return (H if base.shape[-2] == base.shape[-1] else base @ H), base

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest distance of a singular value from the band."""
        if Y.numel() == 0:
            return torch.zeros((), device=Y.device)
        values = torch.linalg.svdvals(widened(Y))
        return torch.maximum(self.low - values, values - self.high).clamp(min=0).max()

    def tolerance(self, Y: Tensor) -> float:
        return 20 * self.high * epsilon(Y) * math.sqrt(min(Y.shape[-2:]))

    def extra_repr(self) -> str:
        shown = [f"band=({self.low:g}, {self.high:g})", *self.shown_rebase()]
        return ", ".join(shown + ["strict=True"] * self.strict)


def bounded(H: Tensor) -> Tensor:
    """`H (I + H²)⁻¹`, whose norm is one half at most, for Hermitian `H`.

    With `[I; H] = [Q₁; Q₂] R` it is `Q₂ Q₁ᴴ`, which rounding cannot enlarge: the inverse could, by
    the square of the norm of `H`.
    """
    n = H.shape[-1]
    identity = torch.eye(n, dtype=H.dtype, device=H.device).expand_as(H)
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        pass
    elif is_exporting_to_onnx():
        block = torch.cat([torch.cat([identity, -H], -1), torch.cat([H, identity], -1)], -2)
        return invert(block)[..., :n, n:]
    Q = torch.linalg.qr(torch.cat([identity, H], dim=-2))[0]
    return matmul(Q[..., n:, :], Q[..., :n, :].mH)
