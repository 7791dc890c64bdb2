"""Steps of optimizers, told by the hooks that torch calls around each of them.

A step need not show in the versions of the tensors that it writes to: fused kernels, `.data` and
the wrappers of sharded training do not raise them. torch calls these hooks for every `Optimizer`,
third-party ones included. Parameters are only looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

__all__ = ["StepMade", "on_step"]

_LISTENERS: list[Callable[[StepMade], None]] = []
_WITH_GRADIENT: dict[int, set[int]] = {}
"""The parameters that had a gradient when an optimizer began its step, which may clear it."""


class StepMade:
    """What one step of one optimizer has written to."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters  # held, so that no identity is given out again
        self.identities = {id(parameter) for parameter in parameters}
        self._places: set[int | None] | None = None

    def wrote_any(self, identities: frozenset[int]) -> bool:
        """Whether one of the tensors with these identities was a parameter of the step."""
        return not self.identities.isdisjoint(identities)

    def wrote(self, tensors: Iterable[Tensor], modules: Iterable[Any]) -> bool:
        """Whether the step wrote to one of `tensors`, or to a tensor of one of `modules`.

        Also if it is part of a flat buffer that the optimizer has in the place of it.
        """
        listed = list(tensors)
        if any(id(tensor) in self.identities for tensor in listed):
            return True
        if any(place_of(tensor) in self.places() for tensor in listed):
            return True
        flat = {id(module) for module in self.flattened()}
        return bool(flat) and any(id(module) in flat for module in modules)

    def places(self) -> set[int | None]:
        """Where the memory of the parameters is."""
        if self._places is None:
            self._places = {place_of(parameter) for parameter in self.parameters} - {None}
        return self._places

    def flattened(self) -> list[Any]:
        """The modules whose parameters FSDP has joined into one of this step's."""
        return [
            info.module
            for parameter in self.parameters
            for info in getattr(parameter, "_param_infos", ())
        ]


def place_of(tensor: Tensor) -> int | None:
    """Equal for tensors that share memory; None if it has none of its own."""
    try:
        storage = tensor.untyped_storage()
        return storage.data_ptr() or None
    except (NotImplementedError, RuntimeError):
        return None


def on_step(listener: Callable[[StepMade], None]) -> None:
    """Call `listener` after each step that any optimizer makes, from now on."""
    if listener in _LISTENERS:
        return
    if not _LISTENERS:
        register_optimizer_step_pre_hook(before_step)
        register_optimizer_step_post_hook(after_step)
    _LISTENERS.append(listener)


def before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if not torch.compiler.is_compiling():  # compiled steps raise the versions of what they write
        _WITH_GRADIENT[id(optimizer)] = {
            id(parameter)
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        }


def after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if torch.compiler.is_compiling():
        return
    had_gradient = _WITH_GRADIENT.pop(id(optimizer), set())
    written = [
        parameter
        for group in optimizer.param_groups
        for parameter in group["params"]
        if id(parameter) in had_gradient or parameter.grad is not None
    ]
    if written:
        step = StepMade(written)
        for listener in _LISTENERS:
            listener(step)
