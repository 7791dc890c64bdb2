"""Initialising a parametrized tensor in place, as `torch.nn.init` and `reset_parameters` do.

They write to what they have read, and that is a value which nobody keeps: without help it
would change nothing, silently. So with the first namespace each function of `torch.nn.init`
gets a stand-in, which assigns what it has written. A name that was imported from there before
is torch's own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter, init
from torch.nn.modules import activation, transformer

from paramdesc.caching.active import active_scopes
from paramdesc.caching.last_read import LAST
from paramdesc.chain.evaluation import evaluate
from paramdesc.torch_internals.dynamo import is_dynamo_compiling

__all__ = ["initialise_through_inverses"]


def initialise_through_inverses() -> None:
    """Let the functions of `torch.nn.init` reach parametrized tensors, from now on."""
    if getattr(init.zeros_, "__code__", None) is stand_in(init.zeros_).__code__:
        return  # done before
    for name, function in list(vars(init).items()):
        if name.endswith("_") and not name.startswith("_"):
            replaced = stand_in(function)
            for module in (init, activation, transformer):  # these have some by their bare names
                if vars(module).get(name) is function:
                    setattr(module, name, replaced)


def stand_in(function: Any) -> FunctionType:
    """`function`, which then assigns what it has made of the value of a parametrized tensor."""
    call = call_and_assign

    def initialise(*args: Any, **kwargs: Any) -> Tensor:
        return call(function, args, kwargs)

    # TorchScript compiles the wrapped source, and looks for its names among these globals
    code, closure = initialise.__code__, initialise.__closure__
    result = FunctionType(code, function.__globals__, function.__name__, None, closure)
    functools.update_wrapper(result, function)
    return result


def call_and_assign(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    tensor = args[0] if args else kwargs.get("tensor")
    found = None
    if isinstance(tensor, Tensor) and not isinstance(tensor, Parameter):
        found = None if is_dynamo_compiling() else find_source(tensor)
    result: Tensor = function(*args, **kwargs)
    if found is not None:
        chain, value = found
        chain.right_inverse(value.detach().clone())
        with torch.no_grad():
            value.copy_(evaluate(chain))
    return result


def find_source(tensor: Tensor) -> tuple[Any, Tensor] | None:
    """The chain that `tensor` is the value of, or part of it, and all of the value."""
    for chain, memory in candidates():
        if memory is None or memory is not memory_of(tensor):
            continue  # the same numbers elsewhere, a copy of the value say
        with torch.no_grad():
            fresh = evaluate(chain)
        if is_same(tensor, fresh):
            return chain, tensor
        base, fresh_base = base_of(tensor), base_of(fresh)
        if tensor._is_view() and is_same(base, fresh_base):
            with torch.no_grad():
                whole = base.as_strided(fresh.size(), fresh.stride(), fresh.storage_offset())
            return chain, whole
    return None


def candidates() -> Iterator[tuple[Any, Any]]:
    """The chains whose value is kept, or that were read last, and the memory of these values."""
    for scope in active_scopes():
        for chain, entry in scope.held().items():
            yield chain, memory_of(entry.value)
    chain, memory = LAST[0][0](), LAST[0][1]()
    if chain is not None and memory is not None:
        yield chain, memory


def memory_of(tensor: Tensor) -> Any:
    """An object that stands for it as long as it lives; None if there is none."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):  # sparse, or wrapped by a transform
        return None


def base_of(tensor: Tensor) -> Tensor:
    base = tensor._base
    return tensor if base is None else base


def is_same(a: Tensor, b: Any) -> bool:
    if not isinstance(b, Tensor) or (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
        return False
    return a.is_meta or torch.equal(a.detach(), b.detach())
