"""Tracks which chains a map belongs to, so that a state is never used for two tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.caching.coverage import note_new_chain
from paramdesc.chain.warm import is_warm
from paramdesc.errors import SharedMapError
from paramdesc.registration.snapshot import Snapshot, below, differs, tensors_in

__all__ = ["check_shared", "is_shared", "join", "leave", "owners_of", "shares_original"]

_CHAINS: WeakKeyDictionary[Module, ref[Any] | WeakSet[Any]] = WeakKeyDictionary()
"""The chains of each map and of each module inside it, most of which belong to a single one. A copy
of a map belongs to no chain."""


def join(chain: Any) -> None:
    """Note that there is a chain, and that its maps belong to it."""
    note_new_chain()
    own = ref(chain)
    for part in below(chain.maps()):
        known = _CHAINS.setdefault(part, own)
        if isinstance(known, ref) and known() is not chain:
            known = WeakSet(owners_of(part))
            _CHAINS[part] = known
        if isinstance(known, WeakSet):
            known.add(chain)


def leave(chain: Any) -> None:
    """Note that `chain` is no longer registered, although it may still exist."""
    for part in below(chain.maps()):
        known = _CHAINS.get(part)
        if isinstance(known, WeakSet):
            known.discard(chain)
        elif known is not None and known() is chain:
            _CHAINS.pop(part, None)


def owners_of(part: Module) -> list[Any]:
    """The chains that `part` has been registered with, also those that have dropped it since."""
    known = _CHAINS.get(part)
    if isinstance(known, ref):
        owner = known()
        return [] if owner is None else [owner]
    return list(known or ())


def chains_with(part: Module) -> Iterator[Any]:
    """The chains that contain `part` now: maps may have been deleted from them."""
    for chain in owners_of(part):
        if any(found is part for found in below(chain.maps())):
            yield chain


def is_shared(parametrization: Module, chain: Any = None) -> bool:
    """Whether `parametrization`, or a module inside it, belongs to a chain other than `chain`."""
    return any(
        owner is not chain for part in below([parametrization]) for owner in chains_with(part)
    )


def shares_original(chain: Any) -> bool:
    """Whether another chain has the same maps and the same original, as after a transfer."""
    original = chain.own_originals().get("original")
    return original is not None and any(
        owner is not chain and owner.own_originals().get("original") is original
        for parametrization in chain.maps()
        for owner in chains_with(parametrization)
    )


def check_shared(parametrization: Module, tensor: Tensor, tensor_name: str) -> None:
    """Refuse a map that belongs to a tensor already and has a state that fits only this tensor.

    The state is what the map declares as `warm_start`, and whatever its `right_inverse` writes to
    the map. Maps without a state, or with trained tensors only, may be shared by any number of
    tensors.

    Raises:
        SharedMapError: a ValueError.
    """
    owners = {part: next(chains_with(part), None) for part in below([parametrization])}
    parts = [part for part, owner in owners.items() if owner is not None]
    if not parts:
        return
    declared = [name for part in parts if is_warm(part) for name in part.warm_start]
    names = declared or written_by_inverse(parametrization, tensor, parts)
    if names:
        owner: Any = owners[parts[0]]
        raise SharedMapError(
            parametrization, tensor_name, f"{owner.tensor_name!r} of {owner.host}", names
        )


def written_by_inverse(parametrization: Module, tensor: Tensor, parts: list[Module]) -> list[str]:
    """The names in `parts` that `right_inverse` writes to, found by a trial that is undone."""
    right_inverse: Any = getattr(parametrization, "right_inverse", None)
    if right_inverse is None:
        return []
    modules = below([parametrization])
    snapshot = Snapshot(modules, (), tensors_in(modules))
    before = [state_of(part) for part in parts]
    try:
        with torch.no_grad():
            right_inverse(tensor.detach().clone())
        after = [state_of(part) for part in parts]
        written = {id(x) for x, numbers in snapshot.numbers if differs(x, numbers)}
    except Exception:
        return []  # registration raises it again
    finally:
        snapshot.restore()
    return [
        name
        for old, new in zip(before, after, strict=True)
        for name in {**old, **new}
        if id(old.get(name)) in written or is_other(old.get(name), new.get(name))
    ]


def state_of(part: Module) -> dict[str, Any]:
    """The attributes and tensors of `part`."""
    state = {name: value for name, value in vars(part).items() if not name.startswith("_")}
    state.update(part.named_parameters(recurse=False))
    state.update(part.named_buffers(recurse=False))
    return state


def is_other(old: Any, new: Any) -> bool:
    """Whether an attribute has another value."""
    if old is new:
        return False
    if old is None or new is None or isinstance(old, Tensor) or isinstance(new, Tensor):
        return True
    try:
        return bool(old != new)
    except (RuntimeError, TypeError, ValueError):  # arrays compare by elements
        return True
