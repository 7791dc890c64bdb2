"""Tensors without data: on the meta device, or fake."""

from __future__ import annotations

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.compiler import is_dynamo_compiling
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from paramdesc.torch_internals.mode import has_numbers

__all__ = ["is_placeholder", "is_stand_in"]


def is_placeholder(X: Tensor) -> bool:
    """Whether only the shape of a result matters, since `X` has no numbers.

    True for meta and fake tensors, except while a graph is recorded, which later runs on data.
    """
    return not is_dynamo_compiling() and not has_numbers(X) and get_proxy_mode() is None


def is_stand_in(X: Tensor) -> bool:
    """Whether `X` is a fake tensor that only shapes are read from: no graph is recorded."""
    return isinstance(X, FakeTensor) and get_proxy_mode() is None
