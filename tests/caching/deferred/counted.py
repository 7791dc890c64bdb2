"""A layer whose map counts its evaluations and its backward passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

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


class Counted(nn.Module):
    def __init__(self, passes: Counter[str]) -> None:
        super().__init__()
        self.count = passes.update  # a dict would be watched by scopes

    def forward(self, X: Tensor) -> Any:
        return CountedExp.apply(X, self.count)  # type: ignore[no-untyped-call]


def counted() -> tuple[Any, Counter[str]]:
    """A layer, and what counts the passes of its map."""
    passes: Counter[str] = Counter()
    linear = layer(Counted(passes))
    passes.clear()
    return linear, passes
