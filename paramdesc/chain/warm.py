"""Maps with a warm start: those whose evaluation starts from where the last one ended."""

from __future__ import annotations

from typing import Any, TypeGuard

from torch.nn import Module

from paramdesc.chain.parametrization import Parametrization

__all__ = ["is_warm", "warm_maps"]


def is_warm(parametrization: Module) -> TypeGuard[Parametrization]:
    """Whether `parametrization` has a warm start."""
    return isinstance(parametrization, Parametrization) and bool(parametrization.warm_start)


def warm_maps(chain: Any) -> dict[str, Parametrization]:
    """The maps in `chain` with a warm start, by path, including those inside other maps.

    Not the maps on parametrized tensors of a map: these belong to chains of their own.
    """
    maps = list(chain.maps())
    if not any(is_warm(part) or part._modules for part in maps):  # most chains, fast
        return {}
    found: dict[str, Module] = {str(i): module for i, module in enumerate(maps)}
    places = list(found)
    for place in places:  # the list grows
        for name, child in found[place].named_children():
            if name != "parametrizations":
                found[f"{place}.{name}"] = child
                places.append(f"{place}.{name}")
    return {place: module for place, module in found.items() if is_warm(module)}
