"""The names of the maps of a chain, as the metadata of a state_dict stores them."""

from __future__ import annotations

from typing import Any

from torch.nn import Module

from paramdesc.chain.function_map import FunctionMap

__all__ = ["MAPS", "are_alike", "map_names"]

MAPS = "paramdesc.maps"
"""The key of the names in the metadata of a chain."""


def map_names(chain: Any) -> list[str]:
    """The names of the classes of the maps, in order, with those of the maps inside them."""
    return [map_name(parametrization) for parametrization in chain.maps()]


def map_name(parametrization: Module) -> str:
    if isinstance(parametrization, FunctionMap):
        return getattr(parametrization.function, "__name__", type(parametrization).__name__)
    name = type(parametrization).__name__
    inner = [
        map_name(child)
        for key, child in parametrization._modules.items()
        if child is not None and key != "parametrizations"
    ]
    return f"{name}({', '.join(inner)})" if inner else name


SAME = {
    "_WeightNorm": "WeightNorm",
    "_SpectralNorm": "SpectralNorm",
    "_Orthogonal": "TorchOrthogonal",
}
"""Classes of torch, and those of this library that give the same value for the same originals."""


def are_alike(stored: list[str], present: list[str]) -> bool:
    """Whether originals for the maps `stored` may be meant for the maps `present`.

    They may be if one of them only has additional maps at its end, such as a `LoRA` that was added
    later.
    """
    pairs = zip(stored, present, strict=False)
    return all(SAME.get(one, one) == SAME.get(other, other) for one, other in pairs)
