"""Modules over the tensors of another one, of a class with more in it."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch.nn import Module

from paramdesc.container import ParametrizationDict
from paramdesc.jit.paths import is_attribute
from paramdesc.jit.source import functions_in, with_source

__all__ = ["parametrized_names", "property_text", "replica", "twin_class"]


def replica(module: Module, cls: type, children: dict[str, Module | None]) -> Module:
    """A module of class `cls` with the state of `module`, but these children."""
    twin: Module = object.__new__(cls)
    twin.__dict__.update(module.__dict__)
    twin.__dict__["_buffers"] = dict(module._buffers.items())
    twin.__dict__["_modules"] = children
    return twin


def parametrized_names(module: Module) -> list[str]:
    """The names that are to be properties: TorchScript has no other way to read a name."""
    chains = module._modules.get("parametrizations")
    names = chains._modules if isinstance(chains, ParametrizationDict) else ()
    return [name for name in names if is_attribute(name)]


def property_text(name: str) -> str:
    return f"@property\ndef {name}(self) -> Tensor:\n    return self.parametrizations[{name!r}]()\n"


@functools.cache
def twin_class(cls: Any, text: str, methods: tuple[tuple[str, str], ...] = ()) -> type:
    """A subclass of `cls`, by the same name, with what `text` defines.

    Kept for good, as TorchScript keeps the types that it made of classes.
    """
    members = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    texts = {
        name: with_source(inspect.unwrap(inspect.getattr_static(cls, name)), method)
        for name, method in methods
    }
    metaclass: Any = type(cls)
    twin: type = metaclass(cls.__name__, (cls,), {**members, **functions_in(text), **texts})
    return twin
