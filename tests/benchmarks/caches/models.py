"""The models that are timed, and what a case takes and gives."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from paramdesc import auto_cache
from tests.benchmarks.caches import ways
from tests.benchmarks.training import Cell

DOCS = Path(__file__).parents[3] / "docs"

M = TypeVar("M", bound=nn.Module)
Scope = Callable[[], AbstractContextManager[Any]]
Step = Callable[[], None]


def orthogonal(library: Any, model: M, path: str = "weight") -> M:
    """The model with an orthogonal tensor, some way from where it was registered.

    There, torch's exponential is that of zero, which takes it less time than any other.
    """
    *submodule, name = path.split(".")
    module: Any = model.get_submodule(".".join(submodule))
    library.orthogonal(module, name)
    with torch.no_grad():
        for original in module.parametrizations[name].parameters():
            original.add_(torch.randn(original.shape).tril(-1) / original.shape[-1] ** 0.5)
    return model


def layer(size: int, library: Any = None) -> nn.Linear:
    """Without a library, a plain one."""
    torch.manual_seed(0)
    linear = nn.Linear(size, size)
    return linear if library is None else orthogonal(library, linear)


def automatic(model: M) -> M:
    auto_cache(model)
    return model


def with_geotorch(make: Callable[[Any], nn.Module]) -> dict[str, nn.Module]:
    """The model of geotorch, where that is installed."""
    with contextlib.suppress(ModuleNotFoundError):
        return {ways.GEOTORCH: make(importlib.import_module("geotorch"))}
    return {}


class Recurrent(nn.Module):
    """Reads a window, which begins in some state, and gives the last state."""

    def __init__(self, size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = Cell(size)

    def forward(self, window: Tensor, state: Tensor, kernel: Tensor | None = None) -> Tensor:
        for x in window:
            state = self.cell(x, state, kernel)
        return state


def recurrent(size: int, library: Any = None) -> Recurrent:
    model = Recurrent(size)
    return model if library is None else orthogonal(library, model, "cell.kernel")
