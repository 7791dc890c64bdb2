"""The two engines, as cells call them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import paramdesc

__all__ = ["PARAMDESC", "TORCH", "Engine", "Loop"]


class Loop(nn.Module):
    """Reads the weight of one layer three times."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return x


class LoopInParamdescScope(Loop):
    def forward(self, x: Tensor) -> Tensor:
        with paramdesc.cached(self.layer):
            for _ in range(3):
                x = torch.tanh(self.layer(x))
        return x


class LoopInTorchScope(Loop):
    def forward(self, x: Tensor) -> Tensor:
        with parametrize.cached():
            for _ in range(3):
                x = torch.tanh(self.layer(x))
        return x


@dataclass(frozen=True)
class Engine:
    """What a cell may ask of an engine; `module` has the functions that both of them have."""

    name: str
    module: Any
    cached: Callable[[Any], AbstractContextManager[Any]]
    script: Callable[[nn.Module], Any]  # the entry point of the engine, or else torch's
    scoped_loop: type[Loop]
    functions: Any  # the one-line functions: orthogonal, spectral_norm, weight_norm

    def register(self, module: nn.Module, tensor_name: str, parametrization: nn.Module) -> None:
        self.module.register_parametrization(module, tensor_name, parametrization)


_PARAMDESC: Any = paramdesc
TORCH = Engine(
    "torch.nn.utils.parametrize",
    parametrize,
    lambda target: parametrize.cached(),  # it covers everything
    torch.jit.script,
    LoopInTorchScope,
    parametrizations,
)
PARAMDESC = Engine(
    "paramdesc",
    _PARAMDESC,
    _PARAMDESC.cached,
    lambda model: _PARAMDESC.jit.script(model),
    LoopInParamdescScope,
    paramdesc.parametrizations,
)
