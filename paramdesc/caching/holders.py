"""Where things can be bound, each looked up by `holder[key]`, as in a dict.

A lookup raises KeyError where nothing is bound any more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

__all__ = ["Attributes", "Cells", "Members", "has_hidden_state", "slots_of"]

_POINTER = struct.calcsize("P")


class Attributes:
    """The attributes of an object."""

    __slots__ = ("owner",)

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self.owner, name)
        except AttributeError:
            raise KeyError(name) from None


class Cells:
    """What a function is closed over, by number."""

    __slots__ = ("cells",)

    def __init__(self, cells: tuple[Any, ...]) -> None:
        self.cells = cells

    def __getitem__(self, number: int) -> Any:
        try:
            return self.cells[number].cell_contents
        except ValueError:
            raise KeyError(number) from None


class Members:
    """The members that a set has now, by number. Those that leave it are found no more."""

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
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                private = name.startswith("__") and not name.endswith("__")
                yield f"_{base.__name__.lstrip('_')}{name}" if private else name


def has_hidden_state(cls: type) -> bool:
    """Whether instances have more in them than attributes: memory that C code has laid out."""
    fields = cls.__dictoffset__ > 0, cls.__weakrefoffset__ > 0, *(True for _ in slots_of(cls))
    return cls.__itemsize__ > 0 or cls.__basicsize__ > object.__basicsize__ + _POINTER * sum(fields)
