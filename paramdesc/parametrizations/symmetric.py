"""Symmetric matrices."""

from __future__ import annotations

from torch import Tensor

from paramdesc.base import Parametrization

__all__ = ["Symmetric"]


class Symmetric(Parametrization):
    """`layer.weight` will be symmetric: `Y = triu(X) + triu(X, 1)ᵀ`.

    Shapes `(*, n, n) -> (*, n, n)`, of any dtype; complex matrices are symmetric, not
    Hermitian. The entries of `X` below the diagonal have no effect and get no gradient.

    Assigning, and registering on a weight, keeps a symmetric matrix as it is, and replaces
    any other by the nearest symmetric one in the Frobenius norm, `(A + Aᵀ) / 2`.

    Args:
        strict: whether to refuse a matrix that is not symmetric instead.

    Raises:
        ValueError: if the matrices are not square; with `strict`, if one that is assigned
            is not symmetric, with the largest difference from its transpose.

    Source: N. J. Higham, *Computing a nearest symmetric positive semidefinite matrix*,
    Linear Algebra Appl. 103 (1988), section 1.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Symmetric())
    >>> bool((linear.weight == linear.weight.T).all())
    True
    """

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__()
        self.strict = strict

    def forward(self, X: Tensor) -> Tensor:
        check_square(X)
        return X.triu() + X.triu(1).mT

    def right_inverse(self, X: Tensor) -> Tensor:
        check_square(X)
        if self.strict and not X.equal(X.mT):
            deviation = (X - X.mT).abs().max().item()
            raise ValueError(
                f"the matrix is not symmetric: it differs from its transpose by {deviation:.3g}. "
                "Assign (X + X.mT) / 2, or register Symmetric() without strict=True."
            )
        if not (X.is_floating_point() or X.is_complex()):
            return X
        return X + (X.mT - X) / 2  # rather than (X + X.mT) / 2, which overflows sooner

    def extra_repr(self) -> str:
        return "strict=True" if self.strict else ""


def check_square(X: Tensor) -> None:
    if X.ndim < 2 or X.shape[-2] != X.shape[-1]:
        raise ValueError(f"symmetric matrices are square, (*, n, n). Got shape {list(X.shape)}.")
