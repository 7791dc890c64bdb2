"""Functions that Dynamo puts into the graph as they are, for the compiler behind it to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.compiler import is_dynamo_compiling

__all__ = ["keep_in_graph"]

_T = TypeVar("_T")


def keep_in_graph(function: Callable[..., _T]) -> Callable[..., _T]:
    """A call of `function`, which Dynamo does not look into; elsewhere an ordinary call.

    For functions that call an `autograd.Function`: to trace one, Dynamo makes an object of it,
    at which torch warns (torch 2.13). `function` takes and returns tensors and constants, and
    must be a global. `torch.compiler.allow_in_graph` would say so to Dynamo at once, and import
    all of it, which takes a second.
    """

    def tell(_: Any) -> None:
        allow: Callable[..., object] = torch.compiler.allow_in_graph
        allow(function)

    def call(*args: Any) -> _T:
        if is_dynamo_compiling():
            torch._dynamo.comptime.comptime(tell)
        return function(*args)

    return call
