"""Models whose gradients are compared with and without deferral."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.parametrizations import Orthogonal
from tests.helpers import Double, Exp, Shift, Sum, chain_of, original_of


class Product(nn.Module):
    """`A exp(B)`, which has two originals."""

    def forward(self, A: Tensor, B: Tensor) -> Tensor:
        return A * B.exp()

    def right_inverse(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        return Y, torch.zeros_like(Y)


class Times(nn.Module):
    """`X` times a tensor that belongs to something else."""

    def __init__(self, read: Callable[[], Tensor]) -> None:
        super().__init__()
        self.read = read

    def forward(self, X: Tensor) -> Tensor:
        return X * self.read().tanh()


class Doubled(nn.Module):
    """An unsafe map: another shape."""

    def forward(self, X: Tensor) -> Tensor:
        return torch.cat([X, X.exp()])


class ToComplex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1j * x.flip(-1)


def layer(*maps: nn.Module, unsafe: bool = False, **options: Any) -> Any:
    """A layer whose weight goes through `maps`."""
    linear = nn.Linear(3, 3, **options)
    for parametrization in maps or (Exp(),):
        P.register_parametrization(linear, "weight", parametrization, unsafe=unsafe)
    return linear


def two_layers() -> nn.Module:
    return nn.Sequential(layer(), nn.Tanh(), layer(Exp()))


def nested() -> nn.Module:
    linear = layer()
    P.register_parametrization(chain_of(linear), "original", nn.Tanh())
    P.register_parametrization(chain_of(linear).parametrizations.original, "original", Exp())
    return linear  # type: ignore[no-any-return]


def closing_over() -> nn.Module:
    other = nn.Parameter(torch.randn(3, 3))
    linear = layer(Times(lambda: other), Exp())
    linear.register_parameter("other", other)
    return linear  # type: ignore[no-any-return]


def reading_another_layer() -> nn.Module:
    first = layer()
    return nn.Sequential(layer(Times(lambda: first.weight)), nn.Tanh(), first)


def used_twice() -> nn.Module:
    linear = layer()
    return nn.Sequential(linear, nn.Tanh(), linear)


def tied() -> nn.Module:
    first, second = layer(), layer(nn.Tanh())
    chain_of(second).original = original_of(first)
    return nn.Sequential(first, nn.Tanh(), second)


def over_a_buffer() -> nn.Module:
    linear = nn.Linear(3, 3)
    del linear.weight
    linear.register_buffer("weight", torch.randn(3, 3))
    return P.register_parametrization(linear, "weight", Exp())


def over_a_buffer_with_a_parameter() -> nn.Module:
    linear = over_a_buffer()
    return P.register_parametrization(linear, "weight", Shift())


def frozen() -> nn.Module:
    model: Any = two_layers()
    original_of(model[0]).requires_grad_(False)
    return model  # type: ignore[no-any-return]


def several_tensors_of_one_layer() -> nn.Module:
    linear = layer()
    P.register_parametrization(linear, "bias", Exp())
    return linear  # type: ignore[no-any-return]


def complex_layer() -> nn.Module:
    """In the precision that is the default."""
    dtype = (1j * torch.zeros(())).dtype
    return nn.Sequential(ToComplex(), layer(Exp(), dtype=dtype))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "one map": layer,
    "two layers": two_layers,
    "several originals": lambda: layer(Product()),
    "several originals, linear": lambda: layer(Sum()),
    "a chain": lambda: layer(Exp(), nn.Tanh(), Double()),
    "several originals in a chain": lambda: layer(Product(), nn.Tanh()),
    "nested": nested,
    "a parameter of the map": lambda: layer(Shift(), nn.Tanh(), Shift()),
    "a parameter of another module": closing_over,
    "a weight of another layer": reading_another_layer,
    "used twice": used_twice,
    "tied": tied,
    "a buffer": over_a_buffer,
    "a buffer, and a parameter of the map": over_a_buffer_with_a_parameter,
    "frozen": frozen,
    "weight and bias": several_tensors_of_one_layer,
    "complex": complex_layer,
    "unsafe": lambda: layer(Doubled(), unsafe=True, bias=False),
    "the original itself": lambda: layer(nn.Identity()),
    "orthogonal": lambda: P.register_parametrization(nn.Linear(3, 3), "weight", Orthogonal()),
}


def originals(model: Any) -> list[nn.Parameter]:
    return [x for name, x in model.named_parameters() if "parametrizations" in name]
