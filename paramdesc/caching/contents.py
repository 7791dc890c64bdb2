"""Writes that nobody counts, found by looking at a few entries of the tensors.

Averages that are swapped in through `.data` raise no version, and neither do collectives. So what
outlives a scope is compared with its tensors again, once after each entry to a persistent scope
and each call of a model that keeps its values by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from paramdesc.torch_internals.sample import differs, sample

__all__ = ["Contents", "look_again"]


class Looks:
    """Counts how often kept values were to be compared anew."""

    def __init__(self) -> None:
        self.count = 0


_LOOKS = Looks()


def look_again() -> None:
    """Let every lasting value be compared with its tensors when it is read next."""
    _LOOKS.count += 1


class Contents:
    """A few entries of each tensor that a value depends on.

    Args:
        tensors: those tensors.
        anywhere: whether to look at tensors on other devices than a CPU too, and wait for them.
    """

    __slots__ = ("_looked", "samples")

    def __init__(self, tensors: Iterable[Tensor], anywhere: bool) -> None:
        found = ((tensor, sample(tensor, anywhere)) for tensor in tensors)
        self.samples = [(tensor, before) for tensor, before in found if before is not None]
        self._looked = _LOOKS.count

    def are_other(self) -> bool:
        """Whether one of the tensors holds other numbers, as far as was looked at since."""
        if self._looked == _LOOKS.count:
            return False
        self._looked = _LOOKS.count
        return any(differs(tensor, before) for tensor, before in self.samples)
