"""The map that is checked, registered on a module as its users would."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import Module, Parameter

from paramdesc.chain.parametrization import Parametrization
from paramdesc.registration.register import register_parametrization

__all__ = ["Holder", "RightInverse", "Subject"]

RightInverse = Literal["identity", "projection", "none"]

WIDE = {torch.float32: torch.float64, torch.complex64: torch.complex128}


class Holder(Module):
    """A module whose weight is all that it computes with."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = Parameter(weight.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


@dataclass(frozen=True)
class Subject:
    """A map, a weight to register it on, and what is declared about it."""

    parametrization: Any
    example: Tensor
    right_inverse: RightInverse
    dtypes: tuple[torch.dtype, ...]
    is_batched: bool
    is_unsafe: bool
    given_tolerance: float | None

    def map(self) -> Any:
        """A copy of the map as it was given."""
        return copy.deepcopy(self.parametrization)

    def holder(self, weight: Tensor | None = None, *, wide: bool = True) -> Any:
        """A module with the map on `weight`, by default on the example.

        In double precision if `wide`, so that what differs is the map's doing.
        """
        weight = self.example if weight is None else weight
        parametrization = self.map()
        if wide:
            weight = weight.to(WIDE.get(weight.dtype, weight.dtype))
        if isinstance(parametrization, Module):
            convert(parametrization, weight)
        return self.register(Holder(weight), parametrization)

    def register(self, module: Module, parametrization: Any) -> Any:
        return register_parametrization(module, "weight", parametrization, unsafe=self.is_unsafe)

    def trained(self, weight: Tensor | None = None, *, wide: bool = True) -> Any:
        """The same, moved off by three training steps to where nothing is special."""
        module = self.holder(weight, wide=wide)
        train(module, torch.optim.SGD, 3, 0.1)
        return module

    def outside(self) -> Tensor:
        """Another random tensor like the example, in double precision, without the constraint."""
        wide = self.example.to(WIDE.get(self.example.dtype, self.example.dtype))
        return random_like(wide, seed=1) + 0.5 * wide

    def has_constraint(self) -> bool:
        parametrization = self.parametrization
        return (
            isinstance(parametrization, Parametrization)
            and type(parametrization).deviation is not Parametrization.deviation
        )

    def tolerance(self, parametrization: Any, value: Tensor) -> float:
        if self.given_tolerance is not None:
            return self.given_tolerance
        result: float = parametrization.tolerance(value)
        return result


def convert(parametrization: Module, weight: Tensor) -> None:
    """Give the tensors of the map the precision and the device of `weight`."""
    real = weight.new_empty(0).real.dtype

    def to_precision(x: Tensor) -> Tensor:
        if x.is_complex():
            return x.to(weight.device, real.to_complex())
        return x.to(weight.device, real if x.is_floating_point() else x.dtype)

    parametrization._apply(to_precision)  # type: ignore[no-untyped-call]


def random_like(X: Tensor, *, seed: int) -> Tensor:
    """Normal random numbers from a separate generator."""
    generator = torch.Generator("cpu").manual_seed(seed)
    dtype = torch.complex64 if X.is_complex() else torch.float32
    numbers = torch.randn(X.shape, generator=generator, dtype=dtype, device="cpu")
    return numbers.to(X.device, X.dtype)


def loss_of(value: Tensor) -> Tensor:
    """A real number that depends on each entry of `value` in its own way."""
    loss = (value * random_like(value, seed=2)).sum()
    return loss.real if value.is_complex() else loss


def gradients(module: Any, value: Tensor | None = None) -> dict[str, Tensor]:
    """The gradients of the loss with respect to the trained tensors, by name; zero where unused."""
    trained = {name: x for name, x in module.named_parameters() if x.requires_grad}
    loss = loss_of(module.weight if value is None else value)
    found = torch.autograd.grad(
        loss, list(trained.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(trained, found, strict=True))


def as_function(module: Any) -> tuple[Callable[..., Tensor], list[Tensor], list[str]]:
    """The value as a function of the trained tensors, with these, and their names."""
    chain = module.parametrizations.weight
    trained = {name: x for name, x in chain.named_parameters() if x.requires_grad}

    def evaluate(*tensors: Tensor) -> Tensor:
        lent = dict(zip(trained, tensors, strict=True))
        value: Tensor = functional_call(chain, lent, ())
        return value

    points = [x.detach().clone().requires_grad_() for x in trained.values()]
    return evaluate, points, list(trained)


def train(module: Any, optimizer: Callable[..., Any], steps: int, rate: float) -> None:
    """Take training steps that move the weight."""
    trained = [x for x in module.parameters() if x.requires_grad]
    stepper = optimizer(trained, lr=rate)
    for _ in range(steps):
        stepper.zero_grad()
        torch.autograd.backward(loss_of(module.weight))
        with trained[0].device:  # Adam counts its steps on the default device (torch 2.10, 2.11)
            stepper.step()
