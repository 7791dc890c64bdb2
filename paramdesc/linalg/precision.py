"""The precision in which maps compute, for any dtype of the weight and any autocast.

What `torch.linalg` lacks in half precision is computed in float32 and cast back.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.amp import is_autocast_available
from torch.compiler import is_dynamo_compiling

from paramdesc.torch_internals.mode import has_autocast, is_plain

__all__ = [
    "all_above",
    "epsilon",
    "has_full_products",
    "in_double",
    "matmul",
    "may_look_at",
    "smallest_normal",
    "widened",
    "without_autocast",
]


def widened(X: Tensor) -> Tensor:
    """`X`, in float32 if it is in half precision."""
    return X.float() if X.dtype in (torch.float16, torch.bfloat16) else X


def in_double(X: Tensor) -> Tensor:
    """`X` in double precision."""
    return X.to(torch.complex128 if X.is_complex() else torch.float64)


def epsilon(X: Tensor) -> float:
    """The distance from one to the next number in the dtype of `X`; zero for integers."""
    is_inexact = X.is_floating_point() or X.is_complex()
    return torch.finfo(X.dtype).eps if is_inexact else 0.0


def smallest_normal(X: Tensor) -> float:
    """The smallest positive number of full precision in the dtype of `X`, as `torch.finfo` has it.

    TorchScript does not support `torch.finfo`.
    """
    is_double = X.dtype == torch.float64 or X.dtype == torch.complex128
    return 2.2250738585072014e-308 if is_double else 1.1754943508222875e-38


def may_look_at(x: Tensor) -> bool:
    """Whether `x` has values, and code may branch on them."""
    return not (is_dynamo_compiling() or x.is_meta or type(x) is not Tensor or not is_plain())


def all_above(x: Tensor, bound: float) -> bool:
    """Whether all entries of `x` are known to be above `bound`. Always false off the CPU."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return False
    return x.device.type == "cpu" and may_look_at(x) and x.numel() > 0 and x.min().item() > bound


def has_full_products() -> bool:
    """Whether products in float32 have its precision on a GPU, whichever way this was set."""
    # torch.get_float32_matmul_precision raises where it was set for a backend
    precision: str = torch.backends.cuda.matmul.fp32_precision
    return precision in ("none", "ieee")


def matmul(A: Tensor, B: Tensor) -> Tensor:
    """`A @ B` in their own dtype, under autocast too."""
    # TorchScript wants the devices written out
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return torch.matmul(A, B)
    if not is_dynamo_compiling() and not has_autocast():
        return torch.matmul(A, B)
    with without_autocast(A):
        return torch.matmul(A, B)


def without_autocast(X: Tensor) -> AbstractContextManager[object]:
    """Inside, operations on the device of `X` keep their dtype."""
    if not is_dynamo_compiling() and not has_autocast():
        return nullcontext()
    device = X.device.type
    # torch.compile cannot ask what is available before torch 2.12
    if device == "meta" or not (is_dynamo_compiling() or is_autocast_available(device)):
        return nullcontext()
    return torch.autocast(device, enabled=False)
