"""Puts the parametrization of one tensor on all modules that hold it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch.nn.parameter import is_lazy

from paramdesc.chain.function_map import FunctionMap, as_map
from paramdesc.errors import OptimizerError, PlacementError, ShardedModuleError, add_note
from paramdesc.models.planning import Target, chain_at, pending_maps
from paramdesc.models.selection import Place, tensor_at
from paramdesc.registration.holders import hold_too
from paramdesc.registration.host import chains_of, tensors_of
from paramdesc.registration.register import put_on, register_parametrization
from paramdesc.registration.snapshot import Snapshot, below, split_tensors, tensors_in

__all__ = ["Placed", "describe", "place"]

MISFIT = (ValueError, IndexError, NotImplementedError, RuntimeError)
"""What maps raise for a tensor that does not fit them."""
NEVER_MISFIT = (ShardedModuleError, torch.OutOfMemoryError)


class Placed(NamedTuple):
    """What became of a target, and the exception that says why it was left."""

    target: Target
    what: Literal["parametrized", "pending", "left"]
    error: Exception | None = None


def place(
    target: Target, unsafe: bool, has_optimizer: bool, is_free: bool, history: list[Snapshot]
) -> Placed:
    """Put the map of `target` on it, or leave it as it is.

    Args:
        is_free: whether it is known that no module holds the tensor besides those of the target.
        history: gets a snapshot of the modules, before they are changed.

    Raises:
        Exception: what the map raises, if the tensor was named exactly, or if the exception does
            not say that the tensor does not fit.
    """
    problem: Exception | None = target.problem
    tensor: Any = tensor_at(target.places[0])
    if problem is None and tensor is not None and is_lazy(tensor):
        problem = problem_of_lazy(target, has_optimizer)
    if problem is not None:
        return Placed(target, "left", problem)
    del tensor  # registration counts references
    first = target.places[0]
    # exceptions of a factory are mistakes in it, and say nothing about the tensor
    made = target.maker.value() if target.maker.kind == "factory" else target.maker.value
    snapshot = take_snapshot(target)
    history.append(snapshot)
    try:
        put_map(target, made, unsafe, is_free)
    except MISFIT as error:
        if target.is_exact or isinstance(error, NEVER_MISFIT):
            add_note(error, f"in parametrize(), at {first.path!r}")
            raise
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


def take_snapshot(target: Target) -> Snapshot:
    """The state of what registering on `target` may change."""
    modules = list(dict.fromkeys(x.module for x in target.places))
    chain = chain_at(target.places[0])
    own = [target.maker.value] if target.maker.kind == "map" else []
    chains = [x for module in modules for x in chains_of(module)]
    return Snapshot(
        [*modules, *below([*chains, *own])],
        [x for place in target.places for x in tensors_of(place.module, place.tensor_name)],
        [
            *tensors_in(below(own)),
            *(split_tensors(chain)[1] if chain is not None else ()),
        ],
    )


def put_map(target: Target, made: Any, unsafe: bool, is_free: bool) -> None:
    """Register a map on the first place of `target`: `made`, or what it returns as a function."""
    first = target.places[0]
    if target.maker.kind == "function":
        count = count_maps(first)
        made = made(first.module, first.tensor_name)
        if made is None or made is first.module:
            if count_maps(first) == count:
                raise PlacementError.no_map(target.key, first.path)
            return
    if is_free:  # under the snapshot of this target, so that none is needed for the call
        put_on(first.module, first.tensor_name, as_map(made), unsafe, is_held=False)
    else:
        register_parametrization(first.module, first.tensor_name, made, unsafe=unsafe)


def count_maps(place: Place) -> int:
    """How many maps are on the tensor, or wait for its shape."""
    chain = chain_at(place)
    return len(pending_maps(place)) + (0 if chain is None else len(list(chain.children())))


def describe(place: Place) -> str:
    """The maps of a tensor, for people."""
    chain = chain_at(place)
    maps = pending_maps(place) if chain is None else list(chain.maps())
    return ", ".join(
        x.extra_repr() if isinstance(x, FunctionMap) else type(x).__name__ for x in maps
    )
