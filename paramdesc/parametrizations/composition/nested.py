"""What maps that contain other maps have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn import Module

from paramdesc.chain.function_map import FunctionMap, as_map
from paramdesc.chain.parametrization import Parametrization
from paramdesc.chain.protocols import TensorMap
from paramdesc.errors import MapError

__all__ = [
    "MovesInner",
    "Unchanged",
    "assign_inner",
    "constraint_of",
    "inner_map",
    "movable_in",
    "other_axes",
]


class Unchanged(Module):
    """The identity, as a map."""

    def forward(self, X: Tensor) -> Tensor:
        return X

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y


class Applied(Module):
    """A function of one tensor, as a map that TorchScript compiles."""

    def __init__(self, function: TensorMap) -> None:
        super().__init__()
        self.function = function

    def forward(self, X: Tensor) -> Tensor:
        return self.function(X)

    def extra_repr(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))


def inner_map(parametrization: Any) -> Module:
    """`parametrization` as a module; None is the identity."""
    if parametrization is None:
        return Unchanged()
    if isinstance(parametrization, nn.ModuleList):
        raise MapError(parametrization)
    module = as_map(parametrization)
    return Applied(module.function) if type(module) is FunctionMap else module


class MovesInner(Parametrization):
    """A map that moves the base points of the maps inside it."""

    def movable(self) -> list[Parametrization]:
        """The maps inside whose base points can be moved."""
        raise NotImplementedError

    def can_move(self) -> bool:
        return bool(self.movable())

    def base_tensors(self) -> list[Tensor]:
        return [x for parametrization in self.movable() for x in parametrization.base_tensors()]

    def is_relative(self) -> bool:
        return any(parametrization.is_relative() for parametrization in self.movable())

    def is_move_due(self, steps: int) -> bool:
        return any(parametrization.is_move_due(steps) for parametrization in self.movable())


def movable_in(maps: Iterable[Module]) -> list[Parametrization]:
    """The maps whose base points can be moved."""
    return [x for x in maps if isinstance(x, Parametrization) and x.can_move()]


def constraint_of(child: Module, Y: Tensor) -> tuple[Tensor, float]:
    """The deviation of `Y` from the constraint of `child`, and the tolerance; zero if unknown."""
    if isinstance(child, Parametrization):
        try:
            return child.deviation(Y), child.tolerance(Y)
        except NotImplementedError:
            pass  # it reaches every tensor, or does not say
    return Y.new_zeros((), dtype=Y.real.dtype), 0.0


def assign_inner(child: Module, Y: Tensor) -> Any:
    """The result of the `right_inverse` of `child` for `Y`.

    Raises:
        NotImplementedError: if it has none, which registration treats as the identity.
    """
    right_inverse: Any = getattr(child, "right_inverse", None)
    if right_inverse is None:
        name = type(child).__name__
        raise NotImplementedError(
            f"{name} does not implement right_inverse. Define {name}.right_inverse(self, X)."
        )
    return right_inverse(Y)


def other_axes(axes: list[int], ndim: int) -> list[int]:
    """The axes among the first `ndim` that are not in `axes`."""
    others: list[int] = []
    for axis in range(ndim):
        if axis not in axes:
            others.append(axis)  # noqa: PERF401  # TorchScript supports no conditions in lists
    return others
