"""A layer whose map counts its evaluations and its backward passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tests.caching.deferred.models import layer


class CountedExp(torch.autograd.Function):
    """exp, which counts both of its passes."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, count: Callable[[list[str]], None]) -> Tensor:
        count(["forward"])
        ctx.count = count
        value = X.exp()
        ctx.save_for_backward(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.count(["backward"])
        return gradient * ctx.saved_tensors[0], None


class CountedClass(type):
    """Its instances have counters that no scope watches: they are bound to neither."""

    _passes: ClassVar[WeakKeyDictionary[nn.Module, Counter[str]]] = WeakKeyDictionary()

    def count_in(cls, module: nn.Module, passes: Counter[str]) -> None:
        cls._passes[module] = passes

    def count(cls, module: nn.Module, names: list[str]) -> None:
        cls._passes[module].update(names)


class Counted(nn.Module, metaclass=CountedClass):
    def __init__(self, passes: Counter[str]) -> None:
        super().__init__()
        type(self).count_in(self, passes)

    def forward(self, X: Tensor) -> Any:
        count = partial(type(self).count, self)
        return CountedExp.apply(X, count)  # type: ignore[no-untyped-call]


def counted() -> tuple[Any, Counter[str]]:
    """A layer, and what counts the passes of its map."""
    passes: Counter[str] = Counter()
    linear = layer(Counted(passes))
    passes.clear()
    return linear, passes
