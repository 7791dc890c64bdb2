"""Data about a chain that copies and pickles do not take along."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

__all__ = ["TRANSIENT", "Transient", "transient_of"]

TRANSIENT = "_transient"
"""The attribute of a chain that holds its `Transient`."""


class Transient:
    """Data about one chain, maintained by the cache, the warm starts and the moves of base points.

    - `bound`: the result of the last walk over its maps.
    - `expiries`: the expiries of its kept values, in all scopes and threads.
    - `capture`: a reference to the last capture of a CUDA graph in which it made a training step.
    - `gatherings`: what is known of the originals that FSDP2 gathers, by name.
    - `group`: the chains that share its originals, with the identities of these, and how often
      they were referred to.
    - `alone`: its settings, if it has turned out that it cannot be evaluated together with others.
    """

    __slots__ = ("alone", "bound", "capture", "expiries", "gatherings", "group")

    def __init__(self) -> None:
        self.bound: Any = None
        self.expiries: WeakSet[Any] | None = None
        self.capture: Any = None
        self.gatherings: dict[str, Any] | None = None
        self.group: Any = None
        self.alone: Any = None

    def __deepcopy__(self, memo: Any) -> Transient:
        return Transient()

    def __reduce__(self) -> tuple[type[Transient], tuple[()]]:
        return Transient, ()


def transient_of(chain: Any) -> Transient:
    """The `Transient` of `chain`, created if necessary."""
    found: Transient = chain.__dict__.get(TRANSIENT) or chain.__dict__.setdefault(
        TRANSIENT, Transient()
    )
    return found
