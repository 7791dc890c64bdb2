"""Matrices with trace zero."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.precision import widened
from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.structure.linear_structure import LinearStructure

__all__ = ["Traceless"]


class Traceless(LinearStructure):
    """Give `layer.weight` trace zero: `Y = X - (tr X / n) I`.

    Traceless matrices generate matrices with determinant one. Shapes `(*, n, n) -> (*, n, n)`,
    floating point or complex. Cost: two passes over the matrix.

    Assignment and registration keep a matrix with trace zero up to rounding and replace any other
    with the nearest one in the Frobenius norm, which the formula also gives.

    Args:
        strict: whether to reject a matrix with another trace instead of replacing it.

    Raises:
        ValueError: if the matrices are not square; with `strict`, if the trace of an assigned
            matrix is not zero; the error's `deviation` is `|tr Y| / n`.

    Source: B. C. Hall, *Lie Groups, Lie Algebras, and Representations*, 2nd ed.,
    proposition 3.23.

    >>> linear = register_parametrization(torch.nn.Linear(2, 2), "weight", Traceless())
    >>> linear.weight = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    >>> linear.weight.tolist()
    [[-2.0, 2.0], [3.0, 2.0]]
    """

    constraint = "of trace zero"

    def project(self, X: Tensor) -> Tensor:
        check_square(X, "traceless")
        diagonal = X.diagonal(0, -2, -1)
        mean = widened(diagonal).mean(-1, keepdim=True).to(X.dtype)
        return X - torch.diag_embed(mean.expand_as(diagonal))
