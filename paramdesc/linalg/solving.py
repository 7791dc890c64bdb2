"""Inverses and triangular systems by LAPACK, or in matrix products where a graph has no others."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.in_products import inverse_in_products, triangular_inverse_in_products
from paramdesc.linalg.precision import matmul
from paramdesc.torch_internals.onnx import is_exporting_to_onnx

__all__ = ["invert", "solve_lower", "solve_upper"]


def invert(T: Tensor) -> Tensor:
    """`T⁻¹`, without waiting for the device to tell of an error."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        pass
    elif is_exporting_to_onnx():
        return inverse_in_products(T)
    M: Tensor = torch.linalg.inv_ex(T)[0]
    return M


def solve_upper(S: Tensor, B: Tensor, unitriangular: bool = False) -> Tensor:
    """`S⁻¹ B`, of an upper triangular matrix, which may have ones on its diagonal."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        pass
    elif is_exporting_to_onnx():
        return matmul(triangular_inverse_in_products(S), B)
    Y: Tensor = torch.linalg.solve_triangular(S, B, upper=True, unitriangular=unitriangular)
    return Y


def solve_lower(S: Tensor, B: Tensor, unitriangular: bool = False) -> Tensor:
    """`S⁻¹ B`, of a lower triangular matrix, which may have ones on its diagonal."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        pass
    elif is_exporting_to_onnx():
        return matmul(triangular_inverse_in_products(S.mT).mT, B)
    Y: Tensor = torch.linalg.solve_triangular(S, B, upper=False, unitriangular=unitriangular)
    return Y
