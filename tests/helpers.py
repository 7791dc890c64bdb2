"""Small maps and layers that the tests share, at module level so that they pickle."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize as torch_engine

import paramdesc

ROOT = Path(__file__).parent.parent
"""What must be on the path of another process for it to find this module."""


class Double(nn.Module):
    """`2 X`, exactly."""

    def forward(self, X: Tensor) -> Tensor:
        return 2 * X

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y / 2


class Shift(nn.Module):
    """`X + shift`, with a trainable shift of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(0.5))

    def forward(self, X: Tensor) -> Tensor:
        return X + self.shift

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y - self.shift.detach()


class Sum(nn.Module):
    """`A + B`, a quarter and three quarters of what is assigned."""

    def forward(self, A: Tensor, B: Tensor) -> Tensor:
        return A + B

    def right_inverse(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        return Y / 4, 3 * Y / 4


class Evaluations(type):
    """Classes that know how often they were evaluated, without a scope watching the number."""

    _counts: ClassVar[dict[str, int]] = {}

    @property
    def evaluations(cls) -> int:
        return cls._counts.get(cls.__qualname__, 0)

    @evaluations.setter
    def evaluations(cls, number: int) -> None:
        cls._counts[cls.__qualname__] = number


class Exp(nn.Module, metaclass=Evaluations):
    """`exp(X)`; the class knows how often eager code has evaluated it."""

    def forward(self, X: Tensor) -> Tensor:
        if not torch.compiler.is_dynamo_compiling():
            type(self).evaluations += 1
        return X.exp()

    def right_inverse(self, Y: Tensor) -> Tensor:
        return (Y if Y.is_complex() else Y.abs()).log()


class Counts(type):
    """Where `Calls` has its numbers: no walk looks into the class of a class."""

    _counts: ClassVar[WeakKeyDictionary[Any, int]] = WeakKeyDictionary()


class Calls(metaclass=Counts):
    """A number that modules can hold without a scope watching it: it is bound to no module."""

    @property
    def count(self) -> int:
        return type(self)._counts.get(self, 0)

    @count.setter
    def count(self, number: int) -> None:
        type(self)._counts[self] = number


class Counting(nn.Module):
    """`exp(X)` plus a parameter, times tensors and numbers of its own, three times in training.

    It knows how often eager code has evaluated it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.plain = torch.ones(())
        self.several = [torch.ones(())]
        self.power = 1
        self.calls = Calls()

    def forward(self, X: Tensor) -> Tensor:
        if not torch.compiler.is_dynamo_compiling():
            self.calls.count += 1
        factor = self.get_buffer("scale") * self.plain * self.several[0]
        value = (X.exp() + self.shift) * factor * self.power
        return 3 * value if self.training else value

    def right_inverse(self, Y: Tensor) -> Tensor:
        return (Y.abs() + 1).log()


def counting(n: int = 3, device: str = "cpu") -> tuple[nn.Linear, Counting]:
    """A layer with three inputs, and the map on its weight, which has counted nothing yet."""
    parametrization = Counting().to(device)
    layer = paramdesc.register_parametrization(
        nn.Linear(3, n, device=device), "weight", parametrization
    )
    parametrization.calls.count = 0
    return layer, parametrization


def linear(parametrization: nn.Module | None = None, n: int = 3) -> nn.Linear:
    """A layer of ours with `parametrization` on its weight, `Double` by default."""
    return paramdesc.register_parametrization(
        nn.Linear(n, n), "weight", parametrization or Double()
    )


def torch_linear(parametrization: nn.Module | None = None, n: int = 3) -> Any:
    """The same layer by torch's own engine."""
    return torch_engine.register_parametrization(
        nn.Linear(n, n), "weight", parametrization or Double()
    )


def chain_of(module: nn.Module, tensor_name: str = "weight") -> Any:
    """`module.parametrizations.<tensor_name>`, untyped as torch has it."""
    chains: Any = module.parametrizations
    return chains[tensor_name]


def original_of(module: nn.Module, tensor_name: str = "weight") -> Any:
    """The original of a chain that has one."""
    return chain_of(module, tensor_name).original


def train_step(module: nn.Module, tensor_name: str = "weight", scale: float = 0.5) -> None:
    """Write to the originals in place, as an optimizer does."""
    with torch.no_grad():
        for original in chain_of(module, tensor_name).originals():
            original.add_(torch.randn_like(original), alpha=scale)


def saved_and_loaded(module: nn.Module) -> Any:
    """`module` after `torch.save` and `torch.load`, through memory."""
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def predict_in_child(rank: int, module: nn.Module, inputs: Tensor, answers: Tensor) -> None:
    """What a spawned process does: write the outputs of `module` into shared memory."""
    with torch.no_grad():
        answers.copy_(module(inputs))
