"""The parametrized tensors of a checkpoint, and what is known of them without their maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from paramdesc.chain.map_names import MAPS
from paramdesc.commands.files.source import Entry, Source
from paramdesc.commands.outcome import Refusal
from paramdesc.models.layouts import Stored, find_stored, keys_of, norm_of, plain_value

__all__ = ["CheckpointTensor", "find_tensors"]


class CheckpointTensor(NamedTuple):
    """A tensor of the model, stored as one or several tensors of the file."""

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

    def main(self) -> Entry:
        """The entry with the shape and dtype of the value, if there is one."""
        usual = MAIN[self.layout, self.norm()]
        return self.entries.get(usual) or next(iter(self.entries.values()))

    def value(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The value, computed from the tensors of the file by role, if `plain_entry` is not
        None."""
        if not self.is_parametrized:
            return tensors["value"]
        with torch.no_grad():
            main = self.main()
            # half precision is computed in float32, and so are lengths and vectors of any other
            common = torch.float32 if main.dtype.itemsize < 4 else main.dtype
            wide = {
                role: tensor.to(common) if tensor.is_floating_point() else tensor
                for role, tensor in tensors.items()
            }
            return plain_value(self.stored, wide, map_name=self.map_name).to(main.dtype)

    def plain_entry(self) -> Entry | None:
        """The tensor of a model without parametrizations; None if it depends on the maps.

        It computes nothing: torch takes a second to prepare for meta tensors.
        """
        if not self.is_parametrized:
            return self.entries["value"]
        if self.layout != "pruned" and not self.norm():
            return None
        main = self.main()
        memory = ("value", self.layout, *(entry.memory for entry in self.entries.values()))
        return Entry(main.dtype, main.shape, memory)

    def norm(self) -> str:
        """The one of torch's two norms that it has, "weight" or "spectral"; "" for neither.

        A map named `SpectralNorm` is the one of this library, whose bound is not stored in files.
        In torch, the bound is always 1.
        """
        if len(self.maps) > 1 or self.map_name == "SpectralNorm":
            return ""
        shapes = {role: entry.shape for role, entry in self.entries.items()}
        return norm_of(self.stored, shapes, self.map_name)

    @property
    def map_name(self) -> str:
        return self.maps[0] if self.maps else ""

    def renamed(self, target: str) -> dict[str, str]:
        """The key in the layout `target` for each role, for the same data."""
        roles = NORMS[self.norm()]
        layout = target
        if target == "weight_g" and self.norm() == "spectral":
            layout = "spectral_norm"
        column = 0 if layout == "torch" else 1
        keys = keys_of(self.path, layout, [pair[column] for pair in roles])
        own = 0 if self.layout == "torch" else 1
        return {pair[own]: keys[pair[column]] for pair in roles}


MAIN = {
    ("plain", ""): "value",
    ("torch", ""): "original",
    ("torch", "weight"): "original1",
    ("torch", "spectral"): "original",
    ("weight_g", "weight"): "v",
    ("spectral_norm", "spectral"): "orig",
    ("pruned", ""): "orig",
}
"""The role of the tensor with the shape of the value, by layout and norm."""

NORMS = {
    "weight": [("original0", "g"), ("original1", "v")],
    "spectral": [("original", "orig"), ("0._u", "u"), ("0._v", "v")],
}
"""The roles in torch's layout, and in that of the older functions."""


def find_tensors(source: Source) -> list[CheckpointTensor]:
    """All tensors of a checkpoint, in order.

    Raises:
        Refusal: if one of them is stored twice, in different layouts.
    """
    found = []
    for stored in find_stored(source.entries):
        if "value" in stored.keys and len(stored.keys) > 1:
            raise Refusal(
                f"{stored.path!r} is stored twice, with and without a parametrization: "
                f"{', '.join(map(repr, stored.keys.values()))}. Remove one of them from the file."
            )
        entries = {role: source.entries[key] for role, key in stored.keys.items()}
        found.append(CheckpointTensor(stored, entries, maps_of(stored, source)))
    return found


def maps_of(stored: Stored, source: Source) -> tuple[str, ...]:
    """The names of the maps, if the file stores them."""
    if stored.layout != "torch":
        return ()
    chain = next(iter(keys_of(stored.path, "torch", ["x"]).values())).removesuffix(".x")
    names = source.metadata.get(chain, {}).get(MAPS, ())
    return tuple(map(str, names))
