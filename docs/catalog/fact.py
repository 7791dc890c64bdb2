"""What the site says of one parametrization, besides its docstring and its picture."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Fact"]


class Fact(NamedTuple):
    """One parametrization."""

    name: str
    """The name of the class, or of the function where there is no class."""
    purpose: str
    """What it gives, in a few words, as a row of the index by purpose."""
    formula: str
    r"""In LaTeX. `X` is the original, or `X_0` and `X_1`, and `Y` is the weight."""
    use: str
    """When to take it, in one or two sentences."""
    instead: tuple[tuple[str, str], ...] = ()
    """What to take instead, each with the reason."""
    replaced: str = ""
    """What happens to other values at an assignment, after "Any other value is"; "" keeps all."""
    cost: str = ""
    """In products of `n x n` matrices or passes over the weight, forward and backward."""
    launches: str = ""
    """The case of the counted launches on a GPU that stands for it."""
    functions: tuple[str, ...] = ()
    """The functions that register it, or belong to it."""
    variants: tuple[tuple[str, str], ...] = ()
    """Further purposes, each with the call or the function that it takes."""
    words: str = ""
    """The name as words, where it is not the name of the class in small letters."""

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """All purposes, each with what to take."""
        return ((self.purpose, self.name), *self.variants)

    @property
    def page(self) -> str:
        """The name of its page."""
        return self.name.lower()

    @property
    def title(self) -> str:
        """The name as words, which searches find, and as it is written."""
        words = self.words or spaced(self.name)
        return self.name if words == self.name else f"{words} (`{self.name}`)"


def spaced(name: str) -> str:
    """`SpectralNorm` as "Spectral norm"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return words[0].upper() + words[1:].lower() if " " in words else name
