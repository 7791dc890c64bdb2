"""Banded matrices."""

from __future__ import annotations

from torch import Tensor

from paramdesc.linalg.shapes import check_matrix
from paramdesc.parametrizations.structure.linear_structure import LinearStructure

__all__ = ["Banded"]


class Banded(LinearStructure):
    """Make `layer.weight` banded: `Y[i, j] = X[i, j]` for `-lower <= j - i <= upper`, else 0.

    `Banded(1, 1)` is tridiagonal, `Banded(1, 0)` lower bidiagonal.

    Shapes `(*, m, n) -> (*, m, n)`, of any dtype. The entries of `X` outside the band have no
    effect and get no gradient. Cost: two passes over the matrix.

    Assignment and registration keep a matrix with this band as it is and replace any other with the
    nearest one in the Frobenius norm, by setting the other entries to zero.

    Args:
        lower: the number of diagonals below the main one.
        upper: the number of diagonals above it.
        strict: whether to reject a matrix with entries outside the band instead of replacing it.

    Raises:
        ValueError: if a number is negative, or the weight is not a matrix; with `strict`, if an
            assigned matrix has entries outside the band; the error's `deviation` is the largest of
            these.

    Source: G. H. Golub, C. F. Van Loan, *Matrix Computations*, 4th ed., section 1.2.1.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Banded(1, 0))
    >>> linear.weight = torch.ones(3, 3)
    >>> linear.weight.tolist()
    [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]
    """

    constraint = "zero outside the band"

    def __init__(self, lower: int, upper: int, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        if lower < 0 or upper < 0:
            raise ValueError(
                f"lower and upper must be zero or positive. Got lower={lower}, upper={upper}."
            )
        self.lower = lower
        self.upper = upper

    def project(self, X: Tensor) -> Tensor:
        check_matrix(X, "banded")
        return X.triu(-self.lower).tril(self.upper)

    def extra_repr(self) -> str:
        shown = [f"lower={self.lower}", f"upper={self.upper}"]
        return ", ".join(shown + ["strict=True"] * self.strict)
