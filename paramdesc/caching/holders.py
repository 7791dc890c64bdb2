"""Holders of values other than dicts, with the same way of looking them up: `holder[key]`.

A lookup never runs code of the user. It raises KeyError if nothing is bound to the key any more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

__all__ = ["Attributes", "Cells", "Items", "Members", "has_hidden_state", "slots_of"]

_POINTER = struct.calcsize("P")


class Attributes:
    """The attributes of an object that are not in its `__dict__`."""

    __slots__ = ("owner",)

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def __getitem__(self, name: str) -> Any:
        try:
            return object.__getattribute__(self.owner, name)
        except AttributeError:
            raise KeyError(name) from None


class Cells:
    """The closure of a function, by the number of the variable."""

    __slots__ = ("cells",)

    def __init__(self, cells: tuple[Any, ...]) -> None:
        self.cells = cells

    def __getitem__(self, number: int) -> Any:
        try:
            return self.cells[number].cell_contents
        except ValueError:  # the variable is not bound
            raise KeyError(number) from None


class Items:
    """The items of a list, tuple or dict whose class may look them up in a way of its own."""

    __slots__ = ("kind", "owner")

    def __init__(self, owner: Any, kind: Any) -> None:
        self.owner = owner
        self.kind = kind

    def __getitem__(self, key: Any) -> Any:
        if self.kind is not dict:
            return self.kind.__getitem__(self.owner, key)
        found = dict.get(self.owner, key, self)  # `[]` would ask `__missing__`
        if found is self:
            raise KeyError(key)
        return found


class Members:
    """The present members of a set, by number."""

    __slots__ = ("listed", "owner")

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.listed = list(owner)

    def __getitem__(self, number: int) -> Any:
        member = self.listed[number]
        if member not in self.owner:
            raise KeyError(number)
        return member


def slots_of(cls: type) -> Iterator[str]:
    """The names in `__slots__` of a class and its bases."""
    for base in type.mro(cls):
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                private = name.startswith("__") and not name.endswith("__")
                yield f"_{base.__name__.lstrip('_')}{name}" if private else name


def has_hidden_state(cls: type) -> bool:
    """Whether instances may hold data other than attributes, in memory that C code manages."""
    fields = cls.__dictoffset__ > 0, cls.__weakrefoffset__ > 0, *(True for _ in slots_of(cls))
    return cls.__itemsize__ > 0 or cls.__basicsize__ > object.__basicsize__ + _POINTER * sum(fields)
