"""The result of `parametrize`, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from paramdesc.chain.table import html_table
from paramdesc.registration.collection import ParametrizationSet

__all__ = ["Outcome", "ParametrizeResult"]


class Outcome(NamedTuple):
    """The outcome for one tensor.

    - `"parametrized"`: it has the maps in `maps`.
    - `"tied"`: it shares the parametrization of another tensor, which `reason` names.
    - `"pending"`: it has no shape yet. The first call of its module registers the map.
    - `"left"`: it is as before, for the reason in `reason`.
    """

    path: str
    what: Literal["parametrized", "tied", "pending", "left"]
    maps: str = ""
    reason: str = ""


@dataclass(frozen=True, repr=False)
class ParametrizeResult:
    """The outcome of `parametrize` for each tensor that its keys select.

    Args:
        outcomes: one outcome for each tensor, in the order of the model.
        parametrizations: the new parametrizations, for use with `cached`, optimizer groups and so
            on.
    """

    outcomes: tuple[Outcome, ...]
    parametrizations: ParametrizationSet

    @property
    def done(self) -> list[str]:
        """The paths of the tensors that are now parametrized, including tied ones."""
        return [x.path for x in self.outcomes if x.what in ("parametrized", "tied")]

    @property
    def pending(self) -> list[str]:
        """The paths of the lazy tensors that the first call of their module parametrizes."""
        return [x.path for x in self.outcomes if x.what == "pending"]

    @property
    def left(self) -> dict[str, str]:
        """The paths of the tensors that were left as they are, each with the reason."""
        return {x.path: x.reason for x in self.outcomes if x.what == "left"}

    def __repr__(self) -> str:
        counts = {"done": len(self.done), "pending": len(self.pending), "left": len(self.left)}
        return f"ParametrizeResult({', '.join(f'{key}={n}' for key, n in counts.items())})"

    def _repr_html_(self) -> str:
        rows = [(x.path, x.what, x.maps or x.reason) for x in self.outcomes]
        return html_table(("tensor", "outcome", "maps"), rows)

    def __str__(self) -> str:
        rows = [(x.path, x.what, x.maps or x.reason) for x in self.outcomes]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
        return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows)
