"""Counts the training steps of a chain whose first map has a base point that follows them."""

from __future__ import annotations

from typing import Any, TypeGuard

from torch.nn import Module

from paramdesc.chain.parametrization import Parametrization
from paramdesc.chain.watched import watch_chain

__all__ = ["base_names", "count_anew", "movable_map", "steps_of", "watch_base"]

COUNT = "_steps_since"
"""The attribute of a chain with the number of steps since its registration or last assignment."""


def movable_map(chain: Any) -> Parametrization | None:
    """The first map of `chain`, if it has a base point that can be moved."""
    first = next(chain.maps(), None)
    return first if is_movable(first) else None


def base_names(chain: Any) -> list[str]:
    """The names of the tensors of the base point in `chain`."""
    first = movable_map(chain)
    if first is None or not first.is_relative():
        return []
    found = {id(x) for x in first.base_tensors()}
    return [f"0.{name}" for name, x in first.named_buffers() if id(x) in found]


def is_movable(parametrization: Module | None) -> TypeGuard[Parametrization]:
    return isinstance(parametrization, Parametrization) and parametrization.can_move()


def watch_base(chain: Any) -> None:
    """Count the steps of `chain` from now on, if its first map has a base point."""
    if movable_map(chain) is not None:
        chain.__dict__.setdefault(COUNT, 0)
        watch_chain(chain)
    else:
        chain.__dict__.pop(COUNT, None)


def count_anew(chain: Any, steps: int = 0) -> None:
    """Set the number of steps, if they are counted."""
    if COUNT in chain.__dict__:
        chain.__dict__[COUNT] = steps


def steps_of(chain: Any) -> int | None:
    """The number of steps since the base point was given; None if they are not counted."""
    count: int | None = chain.__dict__.get(COUNT)
    return count
