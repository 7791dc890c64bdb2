"""One picture of the gallery, as a record."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from paramdesc import parametrizations

from .plots import Plot
from .weights import Evaluate, registered

__all__ = ["Entry"]

NAMES: dict[str, Any] = {"constraints": constraints, "torch": torch}


class Entry(NamedTuple):
    """One picture."""

    source: str
    """How the map is written."""
    weight: Tensor
    plot: Plot
    caption: str
    evaluate: Evaluate = registered
    after: str = "layer.weight"
    """What the second heat map shows."""
    call: str = ""
    """What to write, if it is not the map."""

    @property
    def shown(self) -> str:
        return self.call or self.source

    @property
    def name(self) -> str:
        return self.shown.partition("(")[0]

    @property
    def file(self) -> str:
        return self.name.lower()

    @property
    def alt(self) -> str:
        return (
            f"Heat maps of a weight before and after {self.shown}, and a plot of both: "
            f"{self.plot.title}."
        )

    def make(self) -> nn.Module:
        """The map."""
        made: nn.Module = eval(self.source, NAMES | vars(parametrizations))
        return made
