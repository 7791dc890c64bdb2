"""Modules that TorchScript compiles, and what compares programs with them.

Without postponed annotations: TorchScript takes those of a class as they are.
"""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc import cached
from paramdesc.parametrizations import SpectralNorm, Symmetric
from tests.helpers import Double, Shift, Sum, chain_of, linear

DEPRECATED = pytest.mark.filterwarnings(
    "ignore:.torch.jit"  # torch announces the end of TorchScript
)

X = torch.linspace(-1, 1, 6).reshape(2, 3)


class Counted(nn.Module):
    """`3 X`; counts its evaluations, in TorchScript too."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, X: Tensor) -> Tensor:
        self.calls += 1
        return 3 * X


class Blocks(nn.Module):
    """Parametrized layers in every kind of container, one of them in two places."""

    def __init__(self) -> None:
        super().__init__()
        shared = linear()
        self.first = shared
        self.sequence = nn.Sequential(linear(Sum()), nn.Tanh(), nn.Sequential(linear(Shift())))
        self.several = nn.ModuleList([linear(Symmetric()), nn.Identity(), shared])
        self.named = nn.ModuleDict({"a": linear(SpectralNorm()), "b": nn.Linear(3, 3)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.sequence(self.first(x))
        for block in self.several:
            x = block(x)
        for block in self.named.values():
            x = block(x)
        return x


class Scaled(nn.Module):
    """A parametrized buffer, a chain of three maps, and methods that are exported."""

    scale: torch.Tensor
    weight: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]))
        self.weight = nn.Parameter(torch.eye(3))
        P.register_parametrization(self, "scale", Double())
        for parametrization in (Double(), Shift(), Symmetric()):
            P.register_parametrization(self, "weight", parametrization)

    def forward(self, x: Tensor) -> Tensor:
        return self.scaled(x @ self.weight)

    @torch.jit.export
    def scaled(self, x: Tensor) -> Tensor:
        return x * self.scale


class Recurrent(nn.Module):
    """One of torch's recurrent networks, which TorchScript takes only inside of a module."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        new: Any = kind
        self.network = new(3, 4, num_layers=2, bidirectional=True)
        for name in ("weight_hh_l0", "weight_ih_l1_reverse", "bias_hh_l0"):
            P.register_parametrization(self.network, name, Double())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x.unsqueeze(0))[0]
        return y


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1)
        P.register_parametrization(self.attention, "in_proj_weight", Double())
        P.register_parametrization(self.attention.out_proj, "weight", Symmetric())

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1)
        y: Tensor = self.attention(x, x, x)[0]
        return y


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = P.register_parametrization(nn.Conv1d(2, 2, 2), "weight", SpectralNorm())
        self.embedding = P.register_parametrization(nn.Embedding(4, 2), "weight", Double())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x.unsqueeze(0))
        z: Tensor = self.embedding(torch.tensor([1, 3]))
        return y + z.sum()


class Functions(nn.Module):
    """Plain functions as maps, one of torch's and one of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.one = P.register_parametrization(nn.Linear(3, 3), "weight", torch.neg)
        self.two = P.register_parametrization(
            nn.Linear(3, 3), "weight", add, unsafe=True, right_inverse=halves
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.two(self.one(x))
        return y


def add(A: Tensor, B: Tensor) -> Tensor:
    return A + B


def halves(Y: Tensor) -> tuple[Tensor, Tensor]:
    return Y / 2, Y / 2


def nested() -> nn.Module:
    """An original that is parametrized itself, by a map with a parametrized layer in it."""
    layer = linear()
    P.register_parametrization(chain_of(layer), "original", Inner())
    P.register_parametrization(layer, "weight", Shift())
    return layer


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = linear(Symmetric())

    def forward(self, X: Tensor) -> Tensor:
        return X @ self.layer.weight


MODELS: dict[str, Callable[[], nn.Module]] = {
    "root": linear,
    "several originals": lambda: linear(Sum()),
    "containers": Blocks,
    "buffer and exported": Scaled,
    "RNN": lambda: Recurrent(nn.RNN),
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU": lambda: Recurrent(nn.GRU),
    "attention": Attention,
    "convolution and embedding": Images,
    "functions": Functions,
    "nested": nested,
}


def saved_and_loaded(program: Any) -> Any:
    file = io.BytesIO()
    torch.jit.save(program, file)
    file.seek(0)
    return torch.jit.load(file)  # type: ignore[no-untyped-call]


def gradients(module: Any) -> dict[str, Tensor | None]:
    module.zero_grad()
    module(X).square().sum().backward()
    return {name: p.grad for name, p in module.named_parameters()}


def assert_alike(program: Any, model: nn.Module) -> None:
    """The same outputs and the same gradients, under the same names."""
    torch.testing.assert_close(program(X), model(X))
    found, expected = copy.deepcopy(gradients(program)), gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def train(*modules: Any) -> None:
    """The same step for each."""
    for module in modules:
        gradients(module)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-0.01)


def calls(program: Any, name: str = "weight") -> int:
    """How often the maps were evaluated so far."""
    return sum(int(b) for path, b in program.named_buffers() if path.endswith(f"{name}.0.calls"))


def evaluations(program: Any, run: Callable[[], object]) -> int:
    before = calls(program)
    run()
    return calls(program) - before


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = P.register_parametrization(nn.RNNCell(3, 3), "weight_hh", Counted())
        self.out = linear(Counted())


class CoversSelf(Loop):
    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x)
        with cached(self):
            for _ in range(4):
                state = self.out(self.cell(x, state))
        return state
