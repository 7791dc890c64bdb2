"""Diagonal matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.shapes import check_matrix
from paramdesc.parametrizations.structure.linear_structure import LinearStructure
from paramdesc.torch_internals.onnx import is_exporting_to_onnx

__all__ = ["Diagonal"]


class Diagonal(LinearStructure):
    """Make `layer.weight` diagonal: `Y[i, i] = X[i, i]`, and zero elsewhere.

    Shapes `(*, m, n) -> (*, m, n)`, of any dtype. The entries of `X` off the diagonal have
    no effect and get no gradient. Cost: one pass over the matrix.

    Assignment and registration keep a diagonal matrix as it is and replace any other with the
    nearest one in the Frobenius norm, by setting the other entries to zero.

    Args:
        strict: whether to reject a matrix that is not diagonal instead of replacing it.

    Raises:
        ValueError: if the weight is not a matrix; with `strict`, if an assigned matrix is not
            diagonal; the error's `deviation` is the largest entry off the diagonal.

    Source: R. A. Horn, C. R. Johnson, *Matrix Analysis*, 2nd ed., section 0.9.1.

    >>> linear = register_parametrization(torch.nn.Linear(2, 2), "weight", Diagonal())
    >>> linear.weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> linear.weight.tolist()
    [[1.0, 0.0], [0.0, 4.0]]
    """

    constraint = "diagonal"

    def project(self, X: Tensor) -> Tensor:
        check_matrix(X, "diagonal")
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            pass
        elif is_exporting_to_onnx():
            on_diagonal = torch.eye(X.shape[-2], X.shape[-1], dtype=torch.bool, device=X.device)
            return torch.where(on_diagonal, X, torch.zeros_like(X))
        diagonal = X.diagonal(0, -2, -1)
        return torch.diagonal_scatter(torch.zeros_like(X), diagonal, 0, -2, -1)
