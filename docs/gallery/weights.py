"""Weights to register maps on, and ways to get the value."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

import paramdesc
from paramdesc import parametrizations

__all__ = [
    "COMPLEX",
    "FILTERS",
    "KERNEL",
    "LENGTHS",
    "NEARLY_SYMPLECTIC",
    "SQUARE",
    "TALL",
    "WIDE",
    "Evaluate",
    "applied",
    "gaussian",
    "jointly",
    "registered",
    "trained",
    "with_tensor",
]


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=dtype, generator=generator) / math.sqrt(shape[-1])


SQUARE = gaussian(10, 10)
TALL = gaussian(12, 6) * 1.2
WIDE = gaussian(6, 12) * 1.5
COMPLEX = gaussian(8, 8, dtype=torch.complex64)
FILTERS = gaussian(8, 3, 2, 2) * 1.2
KERNEL = gaussian(8, 2, 3, 3)
LENGTHS = torch.linspace(0.2, 2, 12).unsqueeze(1)
NEARLY_SYMPLECTIC = torch.matrix_exp(parametrizations.Hamiltonian()(SQUARE)) + 0.1 * SQUARE


class Holder(nn.Module):
    """A module with a weight."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())


Evaluate = Callable[[nn.Module, Tensor], Tensor]


def registered(parametrization: nn.Module, weight: Tensor) -> Tensor:
    """The value after registering, which assigns the weight."""
    module = Holder(weight)
    paramdesc.register_parametrization(module, "weight", parametrization, unsafe=True)
    return module.weight.detach()


def applied(parametrization: nn.Module, weight: Tensor) -> Tensor:
    """The value of the weight as the original."""
    value: Tensor = parametrization(weight)
    return value


def with_tensor(name: str, value: Tensor) -> Evaluate:
    """The value after one of the trained tensors has changed."""

    def evaluate(parametrization: nn.Module, weight: Tensor) -> Tensor:
        module = Holder(weight)
        paramdesc.register_parametrization(module, "weight", parametrization, unsafe=True)
        with torch.no_grad():
            module.get_parameter(f"parametrizations.weight.{name}").copy_(value)
        return module.weight.detach()

    return evaluate


def trained(parametrization: nn.Module, weight: Tensor) -> Tensor:
    """The value after a training step towards other numbers."""
    module = Holder(weight)
    paramdesc.register_parametrization(module, "weight", parametrization, unsafe=True)
    optimizer = torch.optim.SGD(module.parameters(), lr=1)
    (module.weight * gaussian(*weight.shape, seed=1)).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return module.weight.detach()


def jointly(parametrization: nn.Module, weight: Tensor) -> Tensor:
    """The value where two tensors hold the halves of the weight."""
    halves = [Holder(half) for half in weight.chunk(2)]
    parametrizations.joint(parametrization, [(half, "weight") for half in halves])
    return torch.cat([half.weight for half in halves]).detach()
