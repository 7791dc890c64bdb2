"""How a value in `parametrize` creates a map for each tensor, or calls a one-line function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

from torch.nn import Module

from paramdesc.errors import MapError, PlacementError

__all__ = ["Maker", "MapSource", "make_maker"]

MapSource: TypeAlias = type[Module] | Module | Callable[..., Any]
"""How `parametrize` gets the map of each tensor.

- A class of maps, `Symmetric`, or a function without arguments that returns a map,
  `lambda: SpectralNorm(0.9)`: called once per tensor.
- A function of the module and the name of the tensor, such as the one-line functions of
  `paramdesc.parametrizations`: it registers a map on the module, or returns one.
- A map, for a single tensor.
"""


class Maker(NamedTuple):
    """A value of `parametrize`, and how it is called."""

    kind: Literal["map", "factory", "function"]
    value: Any


def make_maker(selector: object, value: MapSource) -> Maker:
    """Find out how `value` is called.

    Raises:
        PlacementError: a ValueError.
    """
    if isinstance(value, Module):
        return Maker("map", value)
    if not callable(value):
        raise PlacementError.not_callable(selector, value)
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # a builtin, such as torch.exp
        raise PlacementError.signature(selector, value, "(...)") from None
    if can_call(signature):
        return Maker("factory", value)
    if can_call(signature, "module", "tensor_name") and not isinstance(value, type):
        return Maker("function", value)
    if isinstance(value, type):
        raise PlacementError.signature(selector, value, signature) from MapError(value)
    raise PlacementError.signature(selector, value, signature)


def can_call(signature: inspect.Signature, *arguments: object) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True
