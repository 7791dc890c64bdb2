"""What one trace has asked of chains so far, and the sources that its guards evaluate."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.nn import Module

from paramdesc.torch_internals.dynamo.tracer import parts

__all__ = ["Trace", "may_ask", "result_of", "trace_of", "without_module_marks"]


class Trace:
    """What one trace has taken from scopes so far."""

    def __init__(self) -> None:
        self.chains: dict[Module, None] = {}
        self.variables: dict[Any, Any] = {}

    def moves_state_of(self, chain: Module) -> bool:
        """Whether evaluating another of its chains may write to a map of `chain`.

        They are all evaluated before the call, in another order than the code reads them.
        """
        maps = {part for part in chain.modules() if part._buffers}
        others = (other for other in self.chains if other is not chain)
        return any(maps.intersection(other.modules()) for other in others)

    def leads_apart(self, chain: Module) -> bool:
        """The same, but for chains that are below one another: these are led in any order."""
        parts = set(chain.modules())
        maps = {part for part in parts if part._buffers}
        return any(
            other not in parts
            and chain not in (others := set(other.modules()))
            and maps.intersection(others)
            for other in self.chains
        )


def trace_of(output: Any) -> Trace:
    found: Trace = vars(output).setdefault("_paramdesc", Trace())
    return found


def may_ask(output: Any) -> bool:
    """Whether what is traced has guards that ask, and asks in the mode that it was called in."""
    mode = parts().convert_frame.initial_global_state
    if mode is None or output.export:
        return False  # compiled ahead of time: guards are dropped, or checked just once
    return bool(mode.check()) and not torch._C._are_functorch_transforms_active()


def result_of(place: Any, method: str) -> Any:
    """The source of what `method` of the object at `place` returns."""
    sources = parts().source
    return sources.CallFunctionNoArgsSource(sources.AttrSource(place, method))


def without_module_marks(place: Any) -> Any:
    """The same source, not marked as an attribute of a module.

    What is marked counts as static: CUDA graphs take its address for fixed.
    """
    sources = parts().source
    while isinstance(place, sources.NNModuleSource):
        place = place.base
    if isinstance(place, sources.ChainedSource):
        return dataclasses.replace(place, base=without_module_marks(place.base))
    return place
