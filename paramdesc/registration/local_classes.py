"""Pickling maps whose class is defined inside a function.

Pickle stores classes by name, and such a class has none. It is stored by a number of this
process instead: here the model loads again; elsewhere loading says what to change. Nothing
else of the model suffers from one such map.
"""

from __future__ import annotations

import pickle
import uuid
import warnings
from typing import Any
from weakref import WeakValueDictionary

from torch.nn import Module

__all__ = ["picklable"]

_CLASSES: WeakValueDictionary[str, type[Module]] = WeakValueDictionary()
_PROCESS = uuid.uuid4().hex


def picklable(module: Module | None) -> Any:
    """`module` itself, or a stand-in that pickles to it if its class has no global name."""
    if module is None or "<locals>" not in type(module).__qualname__:
        return module
    return LocalInstance(module)


class LocalInstance:
    """Stands for an instance of a local class while it is pickled."""

    def __init__(self, module: Module) -> None:
        self.module = module

    def __reduce__(self) -> tuple[Any, ...]:
        cls = type(self.module)
        name = f"{cls.__module__}.{cls.__qualname__}"
        warnings.warn(
            f"{name} is defined inside a function, so only this process can load what it saves. "
            "Define it at the top level of a module, or save the state_dict.",
            stacklevel=2,
        )
        key = f"{_PROCESS}:{id(cls)}"
        _CLASSES[key] = cls
        return new_instance, (key, name), self.module.__getstate__()  # type: ignore[no-untyped-call]


def new_instance(key: str, name: str) -> Module:
    """An empty instance of the class with this key, to be given its state."""
    cls = _CLASSES.get(key)
    if cls is None:
        raise pickle.UnpicklingError(
            f"{name} was defined inside a function, so only the process that saved this model "
            "can load it. Define it at the top level of a module and save again."
        )
    return cls.__new__(cls)
