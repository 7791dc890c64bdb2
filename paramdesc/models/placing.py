"""Puts the parametrization of one tensor on all modules that hold it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch.nn import Module
from torch.nn.parameter import is_lazy

from paramdesc.chain.function_map import FunctionMap
from paramdesc.errors import OptimizerError, PlacementError, ShardedModuleError, add_note
from paramdesc.models.planning import Target, chain_at
from paramdesc.models.selection import Place, tensor_at
from paramdesc.registration.holders import hold_too
from paramdesc.registration.host import chains_of, tensors_of
from paramdesc.registration.lazy import PendingRegistration
from paramdesc.registration.register import register_parametrization
from paramdesc.registration.snapshot import Snapshot, below

__all__ = ["Placed", "describe", "place"]

MISFIT = (ValueError, IndexError, NotImplementedError, RuntimeError)
"""What maps raise for a tensor that does not fit them."""
NEVER_MISFIT = (ShardedModuleError, torch.OutOfMemoryError)


class Placed(NamedTuple):
    """What became of a target, and the exception that says why it was left."""

    target: Target
    what: Literal["parametrized", "pending", "left"]
    error: Exception | None = None


def place(target: Target, unsafe: bool, has_optimizer: bool) -> Placed:
    """Put the map of `target` on it, or leave it as it is.

    Raises:
        Exception: what the map raises, if the tensor was named exactly, or if the exception does
            not say that the tensor does not fit.
    """
    problem: Exception | None = target.problem
    if problem is None and is_lazy(tensor_at(target.places[0])):
        problem = problem_of_lazy(target, has_optimizer)
    if problem is not None:
        return Placed(target, "left", problem)
    first = target.places[0]
    snapshot = None
    if target.maker.kind == "function":  # it may do more than one registration
        chains = below(chains_of(first.module))
        snapshot = Snapshot([first.module, *chains], tensors_of(first.module, first.tensor_name))
    # exceptions of a factory are mistakes in it, and say nothing about the tensor
    made = target.maker.value() if target.maker.kind == "factory" else target.maker.value
    try:
        put_map(target, made, unsafe)
    except MISFIT as error:
        if target.is_exact or isinstance(error, NEVER_MISFIT):
            add_note(error, f"in parametrize(), at {first.path!r}")
            raise
        if snapshot is not None:
            snapshot.restore()
        return Placed(target, "left", error)
    chain = chain_at(first)
    if chain is None:
        return Placed(target, "pending")
    for other in target.places[1:]:
        if chain_at(other) is not chain:
            hold_too(chain, other.module, other.tensor_name)
    return Placed(target, "parametrized")


def problem_of_lazy(target: Target, has_optimizer: bool) -> Exception | None:
    """Why a tensor without a shape cannot be registered later, if so."""
    problem: Exception | None = None
    if has_optimizer:
        problem = OptimizerError.lazy()
    elif len(target.places) > 1:
        problem = PlacementError.tied_lazy(*(place.path for place in target.places[:2]))
    if problem is not None and target.is_exact:
        raise problem
    return problem


def put_map(target: Target, made: Any, unsafe: bool) -> None:
    """Register a map on the first place of `target`: `made`, or what it returns as a function."""
    first = target.places[0]
    if target.maker.kind == "function":
        count = count_maps(first)
        made = made(first.module, first.tensor_name)
        if made is None or made is first.module:
            if count_maps(first) == count:
                raise PlacementError.no_map(target.key, first.path)
            return
    register_parametrization(first.module, first.tensor_name, made, unsafe=unsafe)


def count_maps(place: Place) -> int:
    """How many maps are on the tensor, or wait for its shape."""
    chain = chain_at(place)
    return len(pending_maps(place)) + (0 if chain is None else len(list(chain.children())))


def pending_maps(place: Place) -> list[Module]:
    """The maps that wait for the shape of the tensor."""
    hooks = place.module._forward_pre_hooks.values()
    waiting = [hook for hook in hooks if isinstance(hook, PendingRegistration)]
    return [x.parametrization for x in waiting if x.tensor_name == place.tensor_name]


def describe(place: Place) -> str:
    """The maps of a tensor, for people."""
    chain = chain_at(place)
    maps = pending_maps(place) if chain is None else list(chain.maps())
    return ", ".join(
        x.extra_repr() if isinstance(x, FunctionMap) else type(x).__name__ for x in maps
    )
