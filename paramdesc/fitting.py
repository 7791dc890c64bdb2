"""What the originals of a chain can take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from paramdesc.errors import OriginalError

__all__ = ["check_originals"]


def check_originals(chain: Any, result: Any) -> tuple[Tensor, ...]:
    """`result`, which the maps' `right_inverse` returned, as tensors for the originals of `chain`.

    Raises:
        OriginalError: a ValueError, if their number, types or dtypes differ.
    """
    if chain.is_tensor:
        return (check_one(chain, result),)
    if not isinstance(result, Sequence):
        raise OriginalError(
            f"'right_inverse' must return a sequence of tensors. Got {type(result).__name__}."
        )
    if len(result) != chain.ntensors:
        raise OriginalError(
            "'right_inverse' must return a sequence of tensors of length "
            f"{chain.ntensors}. Got a sequence of length {len(result)}."
        )
    for i, (original, tensor) in enumerate(zip(chain.originals(), result, strict=True)):
        check_element(i, original, tensor)
    return tuple(result)


def check_one(chain: Any, tensor: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise OriginalError(f"`right_inverse` should return a tensor. Got {type(tensor).__name__}")
    if tensor.dtype != chain.original.dtype:
        raise OriginalError(
            f"The tensor returned by `right_inverse` has dtype {tensor.dtype} "
            f"while `original` has dtype {chain.original.dtype}"
        )
    return tensor


def check_element(i: int, original: Tensor, tensor: Any) -> None:
    if not isinstance(tensor, Tensor):
        raise OriginalError(
            "'right_inverse' must return a sequence of tensors. "
            f"Got element {i} of type {type(tensor).__name__}."
        )
    if tensor.dtype != original.dtype:
        raise OriginalError(
            f"Tensor {i} returned by `right_inverse` has dtype {tensor.dtype} "
            f"while `original{i}` has dtype {original.dtype}"
        )
