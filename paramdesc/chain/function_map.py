"""Plain functions and other objects that are not modules, as maps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from torch import Tensor
from torch.nn import Module

from paramdesc.chain.protocols import (
    InvertibleParametrizationProto,
    ParametrizationProto,
    TensorMap,
)
from paramdesc.errors import MapError, is_built

__all__ = ["FunctionMap", "InvertibleFunctionMap", "as_map"]


class FunctionMap(Module):
    """Applies a function. It can be pickled if the function can: a named one, not a lambda."""

    def __init__(self, function: TensorMap) -> None:
        super().__init__()
        self.function = function

    def forward(self, *originals: Tensor) -> Tensor:
        return self.function(*originals)

    def extra_repr(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))


class InvertibleFunctionMap(FunctionMap):
    """Applies a function, and another function as its `right_inverse`."""

    def __init__(self, function: TensorMap, inverse: Callable[[Tensor], Any]) -> None:
        super().__init__(function)
        self.inverse = inverse

    def right_inverse(self, X: Tensor) -> Any:
        return self.inverse(X)


def as_map(
    parametrization: ParametrizationProto | TensorMap,
    right_inverse: Callable[[Tensor], Any] | None = None,
) -> Module:
    """`parametrization` as a module: itself if it is a module, otherwise one that calls it.

    Raises:
        MapError: a TypeError, if it cannot be applied to tensors.
        TypeError: if it is a module, and `right_inverse` is given as well.
    """
    if isinstance(parametrization, type):
        raise MapError(parametrization)
    if isinstance(parametrization, Module):
        if not is_built(parametrization):
            raise MapError(parametrization)
        if getattr(parametrization.forward, "__func__", None) is Module.forward:
            raise MapError(parametrization)
        if right_inverse is not None:
            raise TypeError(
                "right_inverse= is only for plain functions. Define "
                f"{type(parametrization).__name__}.right_inverse(self, X) instead."
            )
        warn_of_typo(type(parametrization))
        return parametrization
    if isinstance(parametrization, ParametrizationProto):
        if right_inverse is None and isinstance(parametrization, InvertibleParametrizationProto):
            right_inverse = parametrization.right_inverse
        parametrization = parametrization.forward
    if not callable(parametrization):
        raise MapError(parametrization)
    if right_inverse is None:
        return FunctionMap(parametrization)
    return InvertibleFunctionMap(parametrization, right_inverse)


def warn_of_typo(kind: type[Module]) -> None:
    """Warn of a class whose `right_inverse` is misspelled: it would be ignored."""
    if hasattr(kind, "right_inverse"):
        return
    own = [x for x in dir(kind) if not x.startswith("_") and not hasattr(Module, x)]
    near = get_close_matches("right_inverse", own, 1, cutoff=0.85)
    if near:
        warnings.warn(
            f"{kind.__name__}.{near[0]} is not used, and assigning to the tensor will raise an "
            "error: did you mean right_inverse?",
            stacklevel=4,
        )
