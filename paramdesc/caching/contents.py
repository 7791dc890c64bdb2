"""Detects writes that do not increase a tensor's version, by comparing a sample of the entries.

Writes through `.data`, as when averaged weights are swapped in, do not raise the version of a
tensor, and neither do collectives. So values that outlive their block are compared with their
tensors, once after each entry of a persistent block and each call of a model with `auto_cache`.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from paramdesc.torch_internals.sample import differs, sample

__all__ = ["Contents", "look_again"]


class Looks:
    """Counts the calls of `look_again`."""

    def __init__(self) -> None:
        self.count = 0


_LOOKS = Looks()


def look_again() -> None:
    """Compare each value that outlives its block with its tensors, when it is read next."""
    _LOOKS.count += 1


class Contents:
    """A sample of the entries of each tensor that a value depends on.

    Args:
        tensors: the tensors to sample.
        anywhere: whether to sample tensors on devices other than a CPU too, which waits for them.
    """

    __slots__ = ("_looked", "samples")

    def __init__(self, tensors: Iterable[Tensor], anywhere: bool) -> None:
        found = ((tensor, sample(tensor, anywhere)) for tensor in tensors)
        self.samples = [(tensor, before) for tensor, before in found if before is not None]
        self._looked = _LOOKS.count

    def are_other(self) -> bool:
        """Whether a sample differs. Compares once after each `look_again`; otherwise False."""
        if self._looked == _LOOKS.count:
            return False
        self._looked = _LOOKS.count
        return any(differs(tensor, before) for tensor, before in self.samples)
