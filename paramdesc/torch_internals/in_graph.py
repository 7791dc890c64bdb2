"""Functions that Dynamo puts into the graph without tracing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.compiler import is_dynamo_compiling

__all__ = ["keep_in_graph"]

_T = TypeVar("_T")


def keep_in_graph(function: Callable[..., _T]) -> Callable[..., _T]:
    """Make Dynamo put `function` into the graph as one node. Eager calls are ordinary calls.

    For functions that call an `autograd.Function`: when Dynamo traces one, it creates an instance,
    and torch warns about that (torch 2.13). `function` takes and returns tensors and constants, and
    must be global. `torch.compiler.allow_in_graph` is called late, since it imports all of Dynamo,
    which takes a second.
    """

    def tell(_: Any) -> None:
        allow: Callable[..., object] = torch.compiler.allow_in_graph
        allow(function)

    def call(*args: Any) -> _T:
        if is_dynamo_compiling():
            torch._dynamo.comptime.comptime(tell)
        return function(*args)

    return call
