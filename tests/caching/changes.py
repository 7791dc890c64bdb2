"""Changes of a layer with the map `Counting`, each of which makes another value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import paramdesc as P
from tests.helpers import Counting, chain_of, original_of


def replace_data(layer: nn.Module) -> None:
    original_of(layer).data = torch.full((3, 3), 0.5)


def assign(layer: Any) -> None:
    layer.weight = torch.full((3, 3), 2.0)


def rebind(layer: nn.Module) -> None:
    chain_of(layer).original = nn.Parameter(torch.ones(3, 3))


def other_state(layer: nn.Module) -> dict[str, Tensor]:
    return {name: value + 1 for name, value in layer.state_dict().items()}


def swap(layer: nn.Module) -> None:
    exchange: Any = torch.utils.swap_tensors
    exchange(original_of(layer), nn.Parameter(torch.ones(3, 3)))


def convert_by_swapping(layer: nn.Module) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        layer.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def optimize(layer: nn.Module, **options: Any) -> None:
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.Adam(layer.parameters(), lr=0.1, **options).step()


def own(change: Callable[[Any], object]) -> Callable[[nn.Module], object]:
    return lambda layer: change(chain_of(layer)[0])


OF_MAPS: dict[str, Callable[[Any], object]] = {
    "the map's buffer": own(lambda p: p.scale.mul_(2)),
    "the map's new buffer": own(lambda p: p.register_buffer("scale", torch.full((), 2.0))),
    "the map's tensor": own(lambda p: p.plain.mul_(2)),
    "the map's tensor in a list": own(lambda p: p.several[0].mul_(2)),
    "the map's new tensor in a list": own(lambda p: p.several.__setitem__(0, torch.full((), 2.0))),
    "the map's number": own(lambda p: setattr(p, "power", 2)),
    "another map": lambda m: P.register_parametrization(m, "weight", torch.sin),
}

CHANGES: dict[str, Callable[[Any], object]] = {
    "in-place write": lambda m: original_of(m).add_(1),
    "write to a view": lambda m: original_of(m).view(-1)[1:].zero_(),
    "new .data": replace_data,
    "assignment": assign,
    "new original": rebind,
    "load_state_dict": lambda m: m.load_state_dict(other_state(m)),
    "load_state_dict with assign": lambda m: m.load_state_dict(other_state(m), assign=True),
    ".to(dtype)": lambda m: m.to(torch.float64),
    ".double()": lambda m: m.double(),
    ".double() by swapping": convert_by_swapping,
    "swap_tensors": swap,
    "requires_grad_": lambda m: m.requires_grad_(False),
    "requires_grad_ of the original": lambda m: original_of(m).requires_grad_(False),
    "train of the model": lambda m: m.train(),
    "train of the map": own(lambda p: p.train()),
    "optimizer step": optimize,
    "fused optimizer step": lambda m: optimize(m, fused=True),
    "foreach optimizer step": lambda m: optimize(m, foreach=True),
    "nn.init of the original": lambda m: nn.init.ones_(original_of(m)),
    "nn.init of the tensor": lambda m: nn.init.constant_(m.weight, 4.0),
    "the map's parameter": own(lambda p: p.shift.add_(1)),
    "the map's new parameter": own(lambda p: setattr(p, "shift", nn.Parameter(torch.ones(())))),
    **OF_MAPS,
    "the map replaced": lambda m: chain_of(m).__setitem__(0, Counting().double().eval()),
}
