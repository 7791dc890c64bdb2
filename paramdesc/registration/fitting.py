"""What the maps of a chain must return to fit: to its originals, and to one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.errors import MapResultError, OriginalError

__all__ = ["check_between", "check_originals"]


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


@torch.no_grad()
def check_between(new: Module, before: Tensor, tensor_name: str) -> None:
    """Check that `new` and its `right_inverse` go from tensors like `before` to such."""
    after = new(before)
    if not isinstance(after, Tensor):
        raise MapResultError.type_of("A parametrization", after)
    for aspect in ("dtype", "shape"):
        if getattr(after, aspect) != getattr(before, aspect):
            raise MapResultError.changed(
                aspect, tensor_name, getattr(before, aspect), getattr(after, aspect)
            )
    right_inverse = getattr(new, "right_inverse", None)
    if right_inverse is None:
        return
    # it may set base points, and this is but a trial; parameters that it makes are here to stay
    buffers = [(module._buffers, dict(module._buffers)) for module in new.modules()]
    try:
        back = right_inverse(after)
    except NotImplementedError:
        return
    finally:
        for holder, content in buffers:
            holder.clear()
            holder.update(content)
    if not isinstance(back, Tensor):
        raise MapResultError.type_of("parametrization.right_inverse", back)
    for aspect in ("dtype", "shape"):
        if getattr(back, aspect) != getattr(before, aspect):
            raise MapResultError.inverse_changed(
                aspect, tensor_name, getattr(before, aspect), getattr(back, aspect)
            )
