"""Whether traced code may have changed what a chain depends on, before it reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.nn import Module

from paramdesc.torch_internals.tensors import address

__all__ = ["is_touched"]


def is_touched(output: Any, chain: Module) -> bool:
    """Whether the traced code may have changed something that `chain` depends on, up to here."""
    effects = output.side_effects
    for thing in state_of(chain):
        variable = effects.id_to_variable.get(id(thing))
        if variable is not None and effects.is_modified(variable):
            return True
    # not every write raises the version of a tensor while it is traced: any use counts as one
    places = {place_of(thing) for thing in state_of(chain) if isinstance(thing, Tensor)}
    inputs = {
        id(fake)
        for node, fake in inputs_of(output.root_tracer)
        if place_of(node.meta["grapharg"].example) in places
    }
    return any(
        id(fake) in inputs and node.users
        for tracer in output.tracers
        for node, fake in inputs_of(tracer)
    )


def state_of(chain: Module) -> Iterator[Any]:
    """The modules of `chain`, their attributes and what these contain, one level deep."""
    for module in chain.modules():
        state = vars(module)
        yield from (module, state)
        for value in state.values():
            yield value
            if isinstance(value, dict):
                yield from value.values()
            elif isinstance(value, (list, tuple)):
                yield from value


def inputs_of(tracer: Any) -> Iterator[tuple[Any, Tensor]]:
    """The tensors that a graph takes: the node of each, and what stands for it in the trace."""
    for node in tracer.graph.find_nodes(op="placeholder"):
        fake = node.meta.get("example_value")
        if isinstance(fake, Tensor):
            yield node, fake


def place_of(tensor: Tensor) -> int:
    """Equal for tensors that share memory."""
    return tensor.untyped_storage().data_ptr() if address(tensor) else id(tensor)
