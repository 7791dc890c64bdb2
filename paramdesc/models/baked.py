"""The result of `bake`, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch.nn import Module

from paramdesc.chain.table import html_table

__all__ = ["Baked", "BakedTensor", "LeftTensor"]

M = TypeVar("M", bound=Module)

HEADER = ("tensor", "by", "maps", "shape", "")


@dataclass(frozen=True)
class BakedTensor:
    """A tensor that `bake` has replaced with its value."""

    name: str
    """Its path in the model, `encoder.0.weight`."""
    machinery: str
    """The library or function that had parametrized it."""
    maps: tuple[str, ...]
    """The classes of the maps, in order."""
    shape: tuple[int, ...]
    """The shape of the value."""
    keeps_parameter: bool
    """Whether it is the same Parameter or buffer object as its original was, so that an optimizer
    goes on training it. A tensor that had several originals is a new Parameter."""
    tied_to: str | None = None
    """The path of an earlier tensor that is the same object, if there is one."""


@dataclass(frozen=True)
class LeftTensor:
    """A parametrized tensor that `bake` has left as it is."""

    name: str
    machinery: str
    reason: str


@dataclass(frozen=True)
class Baked(Generic[M]):
    """The result of `bake`: the model, and what was done to it."""

    model: M
    """The model that was given, or its copy."""
    tensors: tuple[BakedTensor, ...]
    """What is plain now, in the order of `named_modules`."""
    left: tuple[LeftTensor, ...]
    """What is still parametrized, with the reason."""

    def names(self) -> list[str]:
        """The paths of the baked tensors."""
        return [tensor.name for tensor in self.tensors]

    def new_parameters(self) -> list[str]:
        """The paths of the tensors that are new objects, which no existing optimizer has.

        To continue training, create the optimizer again.
        """
        return [x.name for x in self.tensors if not x.keeps_parameter and x.tied_to is None]

    def __len__(self) -> int:
        return len(self.tensors)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        count = len(self.tensors)
        return f"<Baked: {count} tensor{'s' * (count != 1)} of {type(self.model).__name__}>"

    def __str__(self) -> str:
        if not self.tensors and not self.left:
            return f"{type(self.model).__name__} has no parametrized tensors"
        rows = [HEADER, *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    def _repr_html_(self) -> str:
        return html_table(HEADER, self._rows())

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            (x.name, x.machinery, " -> ".join(x.maps), "x".join(map(str, x.shape)), note(x))
            for x in self.tensors
        ]
        return rows + [(x.name, x.machinery, "", "", f"left: {x.reason}") for x in self.left]


def note(tensor: BakedTensor) -> str:
    """What is to be known of the new tensor, in a few words."""
    if tensor.tied_to is not None:
        return f"tied to {tensor.tied_to}"
    return "" if tensor.keeps_parameter else "a new tensor"
