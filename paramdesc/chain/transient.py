"""What this process has found out about a chain. Copies and pickles start without it."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

__all__ = ["TRANSIENT", "Transient", "transient_of"]

TRANSIENT = "_transient"
"""The attribute of a chain that holds it."""


class Transient:
    """Facts about one chain that other files look after.

    - `bound` is what the last walk over its maps has found.
    - `expiries` end the values that are kept of it, in whatever scope and thread.
    """

    __slots__ = ("bound", "expiries")

    def __init__(self) -> None:
        self.bound: Any = None
        self.expiries: WeakSet[Any] | None = None

    def __deepcopy__(self, memo: Any) -> Transient:
        return Transient()

    def __reduce__(self) -> tuple[type[Transient], tuple[()]]:
        return Transient, ()


def transient_of(chain: Any) -> Transient:
    """The facts about `chain`, none yet if it is new."""
    found: Transient = chain.__dict__.get(TRANSIENT) or chain.__dict__.setdefault(
        TRANSIENT, Transient()
    )
    return found
