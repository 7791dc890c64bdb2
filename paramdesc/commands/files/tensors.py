"""The parametrized tensors of a checkpoint, and what can be told of them without their maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from paramdesc.commands.files.source import Entry, Source
from paramdesc.errors import LayoutError
from paramdesc.models.layouts import Stored, find_stored, keys_of, plain_value

__all__ = ["CheckpointTensor", "find_tensors"]

MAPS = "paramdesc.maps"  # in the metadata of a chain
WEIGHT_NORM = ("WeightNorm", "_WeightNorm")
SPECTRAL_NORM = ("SpectralNorm", "_SpectralNorm")


class CheckpointTensor(NamedTuple):
    """A tensor of the model, as one or several tensors of the file store it."""

    stored: Stored
    entries: Mapping[str, Entry]
    maps: tuple[str, ...]

    @property
    def path(self) -> str:
        return self.stored.path

    @property
    def layout(self) -> str:
        return self.stored.layout

    @property
    def is_parametrized(self) -> bool:
        return self.layout != "plain"

    def largest(self) -> Entry:
        """The entry that has the dtype of the value."""
        return max(self.entries.values(), key=lambda entry: entry.n_bytes)

    def value(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The value, from the tensors of the file by role.

        Raises:
            LayoutError: if it needs the maps.
        """
        if not self.is_parametrized:
            return tensors["value"]
        if self.layout == "torch" and self.maps and not self.norm():
            raise LayoutError(self.path, list(self.stored.keys.values()))
        with torch.no_grad():
            largest = self.largest()
            # half precision is computed in float32, and so are lengths and vectors of any other
            common = torch.float32 if largest.dtype.itemsize < 4 else largest.dtype
            wide = {
                role: tensor.to(common) if tensor.is_floating_point() else tensor
                for role, tensor in tensors.items()
            }
            name = self.maps[0] if self.maps else ""
            return plain_value(self.stored, wide, map_name=name).to(largest.dtype)

    def plain_entry(self) -> Entry | None:
        """What a model without parametrizations would have; None if that needs the maps."""
        if not self.is_parametrized:
            return self.entries["value"]
        try:
            value = self.value(self.metas())
        except LayoutError:
            return None
        memory = ("value", self.layout, *(entry.memory for entry in self.entries.values()))
        return Entry(value.dtype, tuple(value.shape), memory)

    def norm(self) -> str:
        """Which of torch's two norms it has, "weight" or "spectral"; "" for neither."""
        roles = set(self.entries)
        if self.layout == "weight_g":
            return "weight"
        if self.layout == "spectral_norm":
            return "spectral"
        if self.layout != "torch" or len(self.maps) > 1:
            return ""
        name = self.maps[0] if self.maps else ""
        if roles == {"original", "0._u", "0._v"} and name in ("", *SPECTRAL_NORM):
            return "spectral"
        try:
            plain_value(self.stored, self.metas(), map_name=name)
        except LayoutError:
            return ""
        return "weight" if name in ("", *WEIGHT_NORM) else ""

    def metas(self) -> dict[str, Tensor]:
        return {role: entry.meta() for role, entry in self.entries.items()}

    def renamed(self, target: str) -> dict[str, str]:
        """The key in the layout `target` of each role, the numbers being the same."""
        roles = NORMS[self.norm()]
        layout = target
        if target == "weight_g" and self.norm() == "spectral":
            layout = "spectral_norm"
        column = 0 if layout == "torch" else 1
        keys = keys_of(self.path, layout, [pair[column] for pair in roles])
        own = 0 if self.layout == "torch" else 1
        return {pair[own]: keys[pair[column]] for pair in roles}


NORMS = {
    "weight": [("original0", "g"), ("original1", "v")],
    "spectral": [("original", "orig"), ("0._u", "u"), ("0._v", "v")],
}
"""The roles in torch's layout, and in that of the older functions."""


def find_tensors(source: Source) -> list[CheckpointTensor]:
    """All tensors of a checkpoint, in order."""
    return [
        CheckpointTensor(
            stored,
            {role: source.entries[key] for role, key in stored.keys.items()},
            maps_of(stored, source),
        )
        for stored in find_stored(source.entries)
    ]


def maps_of(stored: Stored, source: Source) -> tuple[str, ...]:
    """The names of the maps, where the file says them."""
    if stored.layout != "torch":
        return ()
    chain = next(iter(keys_of(stored.path, "torch", ["x"]).values())).removesuffix(".x")
    names = source.metadata.get(chain, {}).get(MAPS, ())
    return tuple(map(str, names))
