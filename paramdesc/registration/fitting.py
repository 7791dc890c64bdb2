"""What the maps of a chain must return to fit: to its originals, and to one another."""

from __future__ import annotations

import cmath
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.chain.evaluation import evaluate
from paramdesc.chain.function_map import FunctionMap
from paramdesc.errors import MapResultError, NonFiniteError, OriginalError
from paramdesc.torch_internals.mode import has_numbers, is_plain
from paramdesc.torch_internals.shards import gathered
from paramdesc.torch_internals.tensors import address, is_wrapper

__all__ = [
    "check_assigned",
    "check_between",
    "check_inverted",
    "check_originals",
    "check_value",
    "name_of",
]


def check_originals(chain: Any, result: Any, *, any_dtype: bool = False) -> tuple[Tensor, ...]:
    """`result`, which the maps' `right_inverse` returned, as tensors for the originals of `chain`.

    Raises:
        OriginalError: a ValueError, if their number, types or dtypes differ.
    """
    if chain.is_tensor:
        return (check_one(chain, result, any_dtype),)
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
        check_element(i, original, tensor, any_dtype)
    return tuple(result)


def check_assigned(chain: Any, new: Tensor, value: Tensor) -> None:
    """Refuse a value whose original would have another shape, where the maps keep the shape.

    Raises:
        OriginalError: a ValueError.
    """
    original = chain.own_originals().get("original")
    if chain.unsafe or original is None or new.shape == original.shape:
        return
    with torch.no_grad():
        present = evaluate(chain).shape
    raise OriginalError.shaped(chain.tensor_name, chain.host, present, value.shape)


def check_one(chain: Any, tensor: Any, any_dtype: bool) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise OriginalError(f"`right_inverse` should return a tensor. Got {type(tensor).__name__}")
    if not any_dtype and tensor.dtype != chain.original.dtype:
        raise OriginalError(
            f"The tensor returned by `right_inverse` has dtype {tensor.dtype} "
            f"while `original` has dtype {chain.original.dtype}"
        )
    return tensor


def check_element(i: int, original: Tensor, tensor: Any, any_dtype: bool) -> None:
    if not isinstance(tensor, Tensor):
        raise OriginalError(
            "'right_inverse' must return a sequence of tensors. "
            f"Got element {i} of type {type(tensor).__name__}."
        )
    if not any_dtype and tensor.dtype != original.dtype:
        raise OriginalError(
            f"Tensor {i} returned by `right_inverse` has dtype {tensor.dtype} "
            f"while `original{i}` has dtype {original.dtype}"
        )


@torch.no_grad()
def check_between(new: Module, before: Tensor, tensor_name: str) -> None:
    """Check that `new` and its `right_inverse` go from tensors like `before` to such."""
    before = gathered(before)
    after = new(before)
    if not isinstance(after, Tensor):
        raise MapResultError.type_of("A parametrization", after)
    for aspect in ("dtype", "shape"):
        if getattr(after, aspect) != getattr(before, aspect):
            raise MapResultError.changed(
                aspect, tensor_name, getattr(before, aspect), getattr(after, aspect)
            )
    check_value(new, before, after, tensor_name)
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
    check_inverted([(new, back)], after, tensor_name)


def check_inverted(results: Sequence[tuple[Module, Any]], value: Tensor, tensor_name: str) -> None:
    """Check what each `right_inverse` made of `value` in turn, last map first.

    The check waits for the device once. It warns of infinite originals: a map may reach a bound
    there, but no gradient leads away from it.

    Raises:
        NonFiniteError: a ValueError, if one gave NaN, and `value` is finite.
    """
    if not results or is_same(results[-1][1], value):
        return
    if are_finite(tensors_of_result(results[-1][1])) or not are_finite([value]):
        return
    for parametrization, result in results:
        for tensor in filter(is_looked_at, tensors_of_result(result)):
            name = name_of(parametrization)
            count = int(tensor.isnan().sum())
            if count:
                raise NonFiniteError(
                    f"{name}.right_inverse",
                    tensor_name,
                    count,
                    tensor.numel(),
                    "Assign a value that the parametrization can reach, before registering too, "
                    f"or let {name}.right_inverse move the value inside, for example with "
                    "clamp().",
                )
            count = int(tensor.isinf().sum())
            if count:
                warnings.warn(
                    f"{name}.right_inverse gives {count} infinite entries of {tensor.numel()} "
                    f"for a finite {tensor_name!r}, which no gradient can change. Let it move "
                    "the value inside the range of the parametrization, for example with "
                    "clamp().",
                    stacklevel=5,
                )
                return


def check_value(parametrization: Module, original: Tensor, value: Tensor, tensor_name: str) -> None:
    """Check that the map returns no NaN for finite entries. Infinite ones may be intended.

    Raises:
        NonFiniteError: a ValueError.
    """
    if is_same(value, original) or are_finite([value]) or not are_finite([original]):
        return
    count = int(value.isnan().sum())
    if count:
        name = name_of(parametrization)
        raise NonFiniteError(
            name,
            tensor_name,
            count,
            value.numel(),
            f"Assign a value for which {name} is defined, and then register it.",
        )


def is_same(result: Any, tensor: Tensor) -> bool:
    """Whether `result` has the same entries as `tensor` in the same memory."""
    if result is tensor:
        return True
    is_plain_pair = type(result) in _PLAIN_TENSORS and type(tensor) in _PLAIN_TENSORS
    return is_plain_pair and bool(address(result)) and result.is_set_to(tensor)


_PLAIN_TENSORS = (Tensor, torch.nn.Parameter)


def name_of(parametrization: Module) -> str:
    """What an error calls a map: its class, with the function that it applies."""
    name = type(parametrization).__name__
    is_function = isinstance(parametrization, FunctionMap)
    return f"{name}({parametrization.extra_repr()})" if is_function else name


def tensors_of_result(result: Any) -> list[Tensor]:
    results = [result] if isinstance(result, Tensor) else result
    return [x for x in results if isinstance(x, Tensor)] if isinstance(results, Sequence) else []


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether none of them is known to hold NaN or infinite entries."""
    return all(is_finite(x) for x in tensors if is_looked_at(x))


def is_finite(x: Tensor) -> bool:
    # the sum shows this at a quarter of the cost, unless it overflows
    return cmath.isfinite(x.detach().sum().item()) or bool(x.isfinite().all())


def is_looked_at(x: Tensor) -> bool:
    """Whether there are values that torch can compare: not on meta or in a trace."""
    is_number = (x.is_floating_point() and x.dtype.itemsize > 1) or x.is_complex()
    return (
        is_number
        and x.layout == torch.strided
        and has_numbers(x)
        and not (is_wrapper(x) or not is_plain())
    )
