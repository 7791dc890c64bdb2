"""The requirements of maps on the shape of a weight."""

from __future__ import annotations

from torch import Tensor

__all__ = ["check_matrix", "check_square"]


def check_matrix(X: Tensor, kind: str) -> None:
    """Refuse anything but a matrix `(*, m, n)`; `kind` names the map in the message."""
    if X.ndim < 2:
        raise ValueError(f"{kind} matrices are (*, m, n). Got shape {list(X.shape)}.")


def check_square(X: Tensor, kind: str) -> None:
    """Refuse anything but a square matrix `(*, n, n)`; `kind` names the map in the message."""
    if X.ndim < 2 or X.shape[-2] != X.shape[-1]:
        raise ValueError(f"{kind} matrices are square, (*, n, n). Got shape {list(X.shape)}.")
