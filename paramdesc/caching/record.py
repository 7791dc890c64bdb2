"""The statistics of one chain in a scope: reads, evaluations, times, and reasons for drops."""

from __future__ import annotations

import time
from enum import Enum
from typing import Any, NamedTuple

from paramdesc.torch_internals.locks import ProcessLock

__all__ = ["MODES", "Cause", "Reason", "Record"]


class Reason(Enum):
    """Why a kept value could not be used again."""

    WRITTEN = "written to"
    REWRITTEN = "written to without being counted"
    REPLACED = "replaced"
    STEP = "an optimizer has made a step"
    REQUIRES_GRAD = "requires_grad switched"
    MAPS = "maps added, removed or replaced"
    ATTRIBUTE = "attribute changed"
    VALUE_WRITTEN = "the value was written to"
    VALUE_MARKED = "the value was given a hook, an attribute or another requires_grad"
    CONSUMED = "a backward pass went through it"
    GRAD_MODE = "gradients switched on or off"
    INFERENCE_MODE = "inference mode entered or left"
    CAPTURE = "a capture of a CUDA graph began or ended"
    OTHER_MODE = "other autocast, trace, transform or dispatch mode"
    FORGOTTEN = "assigned to, or converted"
    INVALIDATED = "invalidated by hand"


MODES = frozenset({Reason.GRAD_MODE, Reason.INFERENCE_MODE, Reason.CAPTURE, Reason.OTHER_MODE})
"""The reasons that are temporary: back in the mode of its evaluation, a value is current again."""


class Cause(NamedTuple):
    """A reason, and the name of the tensor or attribute concerned, if any."""

    reason: Reason
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.reason.value}" if self.name else self.reason.value


class Record:
    """What a scope remembers about one chain, apart from the value."""

    __slots__ = ("_lock", "dropped", "dropped_at", "hits", "misses", "name", "seconds", "together")

    def __init__(self, name: str) -> None:
        self.name = name
        self.hits = 0
        self.misses = 0
        self.seconds: dict[str, float] = {}
        self.together = 1  # how many values the last evaluation gave, this one included
        self.dropped: Cause | None = None
        self.dropped_at: float | None = None
        self._lock = ProcessLock()

    @property
    def lock(self) -> Any:
        """Held during an evaluation, if threads share the scope."""
        return self._lock()

    def drop(self, cause: Cause | None) -> None:
        """Remember why the last value was dropped."""
        self.dropped, self.dropped_at = cause, time.time()
