"""The conformance cases of all maps, as layers on a device."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.parametrizations import FromDistributions, Normal, Orthogonal, TorchOrthogonal
from paramdesc.testing.subject import WIDE, Holder, convert, loss_of
from tests.parametrizations.all_cases import CASES

__all__ = ["CASES", "layer_of", "may_wait", "on", "step", "value_and_gradients"]


def layer_of(name: str, *, wide: bool = True) -> Any:
    """A layer on a CPU with the map of the case, moved off by a step to where nothing is special.

    It is in double precision if `wide`: what differs is then not the rounding.
    """
    case = CASES[name]
    torch.manual_seed(0)
    weight, parametrization = case.weight(), case.make()
    if wide:
        weight = weight.to(WIDE.get(weight.dtype, weight.dtype))
    convert(parametrization, weight)
    unsafe = bool(case.declared.get("unsafe", False))
    layer = P.register_parametrization(Holder(weight), "weight", parametrization, unsafe=unsafe)
    step(layer)
    return layer


def on(device: str, layer: Any) -> Any:
    """A copy of `layer` on a device."""
    return copy.deepcopy(layer).to(device)


def step(layer: nn.Module, scale: float = 0.05) -> None:
    """One step of plain gradient descent, by an optimizer."""
    optimizer = torch.optim.SGD(layer.parameters(), lr=scale)
    value_and_gradients(layer)
    optimizer.step()
    optimizer.zero_grad()


def value_and_gradients(layer: Any) -> tuple[Tensor, list[Tensor | None]]:
    """The value, and the gradients of a loss that depends on each of its entries."""
    layer.zero_grad()
    value: Tensor = layer.weight
    loss: Any = loss_of(value)
    loss.backward()
    return value.detach(), [parameter.grad for parameter in layer.parameters()]


def may_wait(name: str) -> bool:
    """Whether evaluating the map waits for the device, as far as is known.

    `torch.linalg.matrix_exp`, `eigh` and `lstsq` look at numbers on the host.
    """
    waiting = (FromDistributions, Normal, TorchOrthogonal)
    return any(
        isinstance(module, waiting)
        or (isinstance(module, Orthogonal) and "matrix_exp" in repr(vars(module)))
        for module in CASES[name].make().modules()
    )
