"""A layer that is called twice, with and without `auto_cache`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import paramdesc as P
from tests.helpers import Exp, chain_of, linear

INPUT = torch.linspace(-1, 1, 6).view(2, 3)


class Twice(nn.Module):
    """One layer, called twice; with a place for what is to happen between."""

    layer: Any

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x).tanh()
        self.pause()
        y: Tensor = self.layer(x)
        return y

    def pause(self) -> None:
        pass


def twice(kind: type[Twice] = Twice) -> Any:
    """A model that is auto-cached, in training mode."""
    torch.manual_seed(0)
    model = kind(linear(Exp()))
    P.auto_cache(model)
    Exp.evaluations = 0
    return model


def plain(model: nn.Module) -> Any:
    """The same model without the setting."""
    twin = copy.deepcopy(model)
    P.auto_cache(twin, enabled=False)
    return twin


def original_of(model: Any) -> Any:
    return chain_of(model.layer).original


def gradients(model: nn.Module, output: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(output.square().sum(), list(model.parameters())))


def assert_same(model: Any, other: Callable[..., Tensor] | None = None) -> None:
    """Output and gradients of `other`, the model by default, are those without the setting."""
    twin = plain(model)
    expected = twin(INPUT)
    output = (model if other is None else other)(INPUT)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(gradients(model, output), gradients(twin, expected))


CHANGES: dict[str, Callable[[Any], object]] = {
    "in-place write": lambda m: original_of(m).add_(1),
    "assignment": lambda m: setattr(m.layer, "weight", torch.full((3, 3), 2.0)),
    "new original": lambda m: setattr(
        chain_of(m.layer), "original", nn.Parameter(torch.ones(3, 3))
    ),
    "load_state_dict": lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
    "load_state_dict with assign": lambda m: m.load_state_dict(
        {k: v + 1 for k, v in m.state_dict().items()}, assign=True
    ),
    "double": lambda m: m.double(),
    "requires_grad_": lambda m: m.requires_grad_(False),
    "train": lambda m: m.train(),
    "nn.init": lambda m: nn.init.constant_(m.layer.weight, 4.0),
    "another map": lambda m: P.register_parametrization(m.layer, "weight", torch.sin),
}
