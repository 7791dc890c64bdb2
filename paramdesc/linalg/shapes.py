"""What maps ask of the shape of a weight."""

from __future__ import annotations

from torch import Tensor

__all__ = ["check_matrix", "check_square"]


def check_matrix(X: Tensor, kind: str) -> None:
    """Refuse what is no matrix `(*, m, n)`; `kind` says what was to be made of it."""
    if X.ndim < 2:
        raise ValueError(f"{kind} matrices are (*, m, n). Got shape {list(X.shape)}.")


def check_square(X: Tensor, kind: str) -> None:
    """Refuse what is no square matrix `(*, n, n)`; `kind` says what was to be made of it."""
    if X.ndim < 2 or X.shape[-2] != X.shape[-1]:
        raise ValueError(f"{kind} matrices are square, (*, n, n). Got shape {list(X.shape)}.")
