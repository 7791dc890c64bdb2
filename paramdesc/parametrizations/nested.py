"""What maps that are made of other maps have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn import Module

from paramdesc.base import Parametrization
from paramdesc.errors import MapError
from paramdesc.function_map import as_map

__all__ = ["Nested", "Unchanged", "assign_inner", "constraint_of", "inner_map"]


class Unchanged(Module):
    """The identity, as a map."""

    def forward(self, X: Tensor) -> Tensor:
        return X

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y


def inner_map(parametrization: Any) -> Module:
    """`parametrization` as a module; None is the identity."""
    if parametrization is None:
        return Unchanged()
    if isinstance(parametrization, nn.ModuleList):
        raise MapError(parametrization)
    return as_map(parametrization)


class Nested(Parametrization):
    """A map that is made of others.

    It tells its engine of the states that they keep for their next evaluation, and hands on to
    each of them when to start anew and when to move on: a subclass defines `states`.
    """

    # TorchScript would compile them
    __jit_unused_properties__ = ("is_led", "warm_start")  # noqa: RUF012

    def states(self, *originals: Tensor) -> Iterator[tuple[Parametrization, tuple[Tensor, ...]]]:
        """The maps inside that keep a state, each with what it will be applied to.

        They are asked for in turns: what comes later may depend on the state of an earlier one.
        """
        raise NotImplementedError

    def warm_maps(self) -> list[tuple[str, Parametrization]]:
        """The maps inside that keep a state, not those inside of them, by name."""
        found: list[tuple[str, Parametrization]] = []
        stack = list(self.named_children())
        for name, child in stack:
            if is_warm(child):
                found.append((name, child))
            elif isinstance(child, nn.ModuleList):
                stack += [(f"{name}.{inner}", part) for inner, part in child.named_children()]
        return found

    @property
    def warm_start(self) -> tuple[str, ...]:  # type: ignore[override]
        """The tensors of all states, by their names from here."""
        return tuple(
            f"{name}.{buffer}" for name, child in self.warm_maps() for buffer in child.warm_start
        )

    @property
    def is_led(self) -> bool:  # type: ignore[override]
        return all(child.is_led for _, child in self.warm_maps())

    @is_led.setter
    def is_led(self, led: bool) -> None:
        for _, child in self.warm_maps():
            child.is_led = led

    def has_state(self) -> bool:
        return all(child.has_state() for _, child in self.warm_maps())

    def follow(self, *originals: Tensor) -> None:
        """Nothing: each map inside follows what it is applied to."""

    def reset(self, *originals: Tensor) -> None:
        for child, inputs in self.states(*originals):
            child.reset(*inputs)

    def advance(self, *originals: Tensor) -> None:
        for child, inputs in self.states(*originals):
            child.advance(*inputs)


def is_warm(child: Module) -> bool:
    return isinstance(child, Parametrization) and bool(child.warm_start)


def constraint_of(child: Module, Y: Tensor) -> tuple[Tensor, float]:
    """The deviation of `Y` from what `child` reaches, and what is allowed; zero if unknown."""
    if isinstance(child, Parametrization):
        try:
            return child.deviation(Y), child.tolerance(Y)
        except NotImplementedError:
            pass  # it reaches every tensor, or does not say
    return Y.new_zeros((), dtype=Y.real.dtype), 0.0


def assign_inner(child: Module, Y: Tensor) -> Any:
    """What the `right_inverse` of `child` makes of `Y`.

    Raises:
        NotImplementedError: if it has none, which registration takes for the identity.
    """
    right_inverse: Any = getattr(child, "right_inverse", None)
    if right_inverse is None:
        name = type(child).__name__
        raise NotImplementedError(
            f"{name} does not implement right_inverse. Define {name}.right_inverse(self, X)."
        )
    return right_inverse(Y)
