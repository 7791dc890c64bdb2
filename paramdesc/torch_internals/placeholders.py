"""Tensors that have a shape and no numbers, and that nobody records."""

from __future__ import annotations

from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from paramdesc.torch_internals.mode import has_numbers

__all__ = ["is_placeholder"]


def is_placeholder(X: Tensor) -> bool:
    """Whether the shape of a result made of `X` is all that anyone can learn from it.

    True on meta and for fake tensors, except where a graph is recorded: it will run on numbers.
    """
    return not is_dynamo_compiling() and not has_numbers(X) and get_proxy_mode() is None
