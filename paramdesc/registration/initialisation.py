"""Initializing a parametrized tensor in place, as `torch.nn.init` and `reset_parameters` do.

They write to the tensor that they have read, a new value to which nothing else refers. Without
support, this would silently have no effect. Therefore, once a namespace exists, the functions of
`torch.nn.init` check whether the memory of their tensor belongs to a value, and assign the result.
No entries are compared.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Embedding, EmbeddingBag, Parameter, init

from paramdesc.caching.last_read import place_of, source_of
from paramdesc.chain.evaluation import evaluate
from paramdesc.errors import InitialisationError
from paramdesc.torch_internals.dynamo import is_dynamo_compiling
from paramdesc.torch_internals.functions import stand_in_for
from paramdesc.torch_internals.mode import DisableTorchFunction

__all__ = ["initialise_through_inverses"]


LOADED = "_is_hf_initialized"
"""The mark of transformers on tensors that it has loaded: it does not initialize these."""


@cache
def initialise_through_inverses() -> None:
    """Let the functions of `torch.nn.init` reach parametrized tensors, from now on."""
    for name, function in vars(init).items():
        if name.endswith("_") and not name.startswith("_"):
            tensor = next(iter(inspect.signature(function).parameters))
            stand_in_for(function, write_and_assign, f"type({tensor}).__name__ != 'Parameter'")
    for host in (Embedding, EmbeddingBag):
        stand_in_for(getattr(host, "_fill_padding_idx_with_zero", None), fill_padding)


def write_and_assign(own: Any, tensor: Any, *args: Any, **kwargs: Any) -> Any:
    """Let torch write to the value that `tensor` is part of, and assign the value."""
    if is_dynamo_compiling() or not isinstance(tensor, Tensor) or isinstance(tensor, Parameter):
        return NotImplemented
    with DisableTorchFunction():
        chain, value = find_value(tensor)
    if chain is None or value is None:
        return NotImplemented
    originals = chain.own_originals()  # none, if they are parametrized themselves
    if originals and all(getattr(x, LOADED, False) for x in originals.values()):
        return tensor
    before = value.detach().clone()
    try:
        result = own(tensor, *args, **kwargs)
        chain.right_inverse(value.detach().clone())
    except BaseException:
        overwrite(value, before)  # a scope may keep it
        raise
    overwrite(value, evaluate(chain))
    return result


def overwrite(value: Tensor, new: Tensor) -> None:
    with torch.no_grad():
        value.copy_(new)


def find_value(tensor: Tensor) -> tuple[Any, Tensor | None]:
    """The chain that has `tensor`, or what `tensor` is part of, as its value, and that value.

    None where there is nothing to assign. A value that is an original, or a view of one, is
    set when it is written to.
    """
    try:
        storage = tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):  # sparse, or wrapped by a transform
        return None, None
    chain, place = source_of(storage)
    if chain is None or any(has_memory(x, storage) for x in chain.own_originals().values()):
        return None, None
    base = tensor if tensor._base is None else tensor._base
    if place is None:  # it had its memory for itself
        if base.numel() * base.element_size() != storage.nbytes():
            raise InitialisationError(chain.tensor_name)
        return chain, base
    if place == place_of(tensor):
        return chain, tensor
    size, stride, offset, dtype = place
    similar = next((x for x in (tensor, base) if x.dtype == dtype), None)
    if similar is None:
        raise InitialisationError(chain.tensor_name)
    return chain, similar.detach().as_strided(size, stride, offset)


def has_memory(tensor: Tensor, storage: Any) -> bool:
    try:
        return tensor.untyped_storage() is storage
    except (NotImplementedError, RuntimeError):
        return False


def fill_padding(own: Any, embedding: Any) -> Any:
    """Set the row of the padding to zero. Torch writes to it without one of its functions."""
    index = embedding.padding_idx
    if index is None or "weight" in embedding._parameters or is_dynamo_compiling():
        return NotImplemented
    init.zeros_(embedding.weight[index])
    return None
