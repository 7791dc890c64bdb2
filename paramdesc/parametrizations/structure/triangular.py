"""Triangular matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.shapes import check_matrix
from paramdesc.parametrizations.structure.linear_structure import LinearStructure

__all__ = ["Triangular"]


class Triangular(LinearStructure):
    """Make `layer.weight` triangular: `Y = tril(X)`, or `triu(X)` with `upper`.

    With `unit`, the diagonal is one: `Y = tril(X, -1) + I`, which is invertible for every `X`.

    Shapes `(*, m, n) -> (*, m, n)`, of any dtype; `Y[i, j]` is zero for `j > i`, or `j < i`. The
    entries of `X` in these places, and with `unit` those on the diagonal, have no effect and get no
    gradient. Cost: one pass over the matrix, three with `unit`.

    Assignment and registration keep a matrix of this form as it is and replace any other with the
    nearest one in the Frobenius norm, by overwriting the other entries.

    Args:
        upper: whether the entries below the diagonal are zero rather than those above it.
        unit: whether the diagonal is one.
        strict: whether to reject a matrix that is not of this form instead of replacing it.

    Raises:
        ValueError: if the weight is not a matrix; with `strict`, if an assigned matrix is not of
            this form; the error's `deviation` is the largest entry that differs from its zero or
            one.

    Source: G. H. Golub, C. F. Van Loan, *Matrix Computations*, 4th ed., section 3.1.

    >>> layer = torch.nn.Linear(2, 2)
    >>> layer = register_parametrization(layer, "weight", Triangular(unit=True))
    >>> layer.weight = torch.tensor([[2.0, 3.0], [4.0, 5.0]])
    >>> layer.weight.tolist()
    [[1.0, 0.0], [4.0, 1.0]]
    """

    constraint = "triangular of this form"

    def __init__(self, *, upper: bool = False, unit: bool = False, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self.upper = upper
        self.unit = unit

    def project(self, X: Tensor) -> Tensor:
        check_matrix(X, "triangular")
        if not self.unit:
            return X.triu() if self.upper else X.tril()
        eye = torch.eye(X.shape[-2], X.shape[-1], dtype=X.dtype, device=X.device)
        return (X.triu(1) if self.upper else X.tril(-1)) + eye

    def extra_repr(self) -> str:
        shown = ["upper=True"] * self.upper + ["unit=True"] * self.unit
        return ", ".join(shown + ["strict=True"] * self.strict)
