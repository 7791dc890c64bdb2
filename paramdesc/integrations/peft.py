"""Merging adapters of PEFT into parametrized layers.

PEFT merges an adapter by writing to `base_layer.weight.data`. If the weight is parametrized, that
writes to a value that was evaluated for this read, and the adapter is lost.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch.nn import Module

from paramdesc.errors import AdapterMergeError
from paramdesc.models.bake import bake
from paramdesc.registration.collection import get_parametrizations

__all__ = ["bake_for_merge", "merge_and_unload", "refuse_lost_merges"]

WRITERS = (
    "merge",
    "pissa_init",
    "olora_init",
    "corda_init",
    "loftq_init",
    "mica_init",
    "lora_ga_init",
)
"""The methods of PEFT's layers that write to the base layer."""


def bake_for_merge(model: Any) -> Any:
    """Bake the base layers of `model` that have adapters, so that merging works.

    Other layers, and the adapters themselves, stay parametrized.

    Args:
        model: a `PeftModel`, or any model with PEFT's layers.

    Returns:
        `model`.
    """
    layers = [layer for layer in model.modules() if is_tuner_layer(layer)]
    bases = [layer.get_base_layer() for layer in layers]
    parametrized = [base for base in bases if names_in(base)]
    if parametrized:
        bake(model, *dict.fromkeys(parametrized))
    return model


def merge_and_unload(model: Any, **options: Any) -> Any:
    """`model.merge_and_unload(...)`, after baking the base layers that have adapters.

    The merged weights are plain: a low-rank update of an orthogonal matrix is not orthogonal.

    Args:
        model: a `PeftModel`.
        options: those of `merge_and_unload`.

    Returns:
        The model without adapters.
    """
    return bake_for_merge(model).merge_and_unload(**options)


def refuse_lost_merges(tuners_utils: Any) -> None:
    """Let PEFT's layers refuse to write to parametrized tensors, instead of having no effect.

    Called when `peft.tuners.tuners_utils` is imported in a process that has parametrized a tensor.

    Args:
        tuners_utils: this module of PEFT.
    """
    layer = tuners_utils.BaseTunerLayer
    if "__init_subclass__" in vars(layer):
        return

    def guard_subclass(cls: Any, /, **options: Any) -> None:
        super(layer, cls).__init_subclass__(**options)
        guard(cls)

    layer.__init_subclass__ = classmethod(guard_subclass)
    for cls in subclasses(layer):
        guard(cls)


def subclasses(cls: Any) -> set[Any]:
    found: set[Any] = set()
    for each in cls.__subclasses__():
        found |= {each} | subclasses(each)
    return found


def guard(cls: Any) -> None:
    """Let the methods of `cls` that write to the base layer ask first."""
    for name in WRITERS:
        method = vars(cls).get(name)
        if callable(method) and not getattr(method, "_refuses_lost_merges", False):
            setattr(cls, name, asking(method))


def asking(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        base = self.get_base_layer()
        names = names_in(base)
        if names:
            raise AdapterMergeError(method.__name__, names, type(base).__name__)
        return method(self, *args, **options)

    untyped: Any = call
    untyped._refuses_lost_merges = True
    return call


def is_tuner_layer(module: Module) -> bool:
    """Whether `module` is a layer of PEFT, which need not be imported to be asked."""
    return any(cls.__name__ == "BaseTunerLayer" for cls in type(module).__mro__)


def names_in(base: Any) -> list[str]:
    """The paths of the parametrized tensors of a base layer, without those of nested adapters."""
    if not isinstance(base, Module):
        return []
    nested = [path for path, module in base.named_modules() if path and is_tuner_layer(module)]
    return [
        path
        for path in get_parametrizations(base).names()
        if not any(path.startswith(f"{layer}.") for layer in nested)
    ]
