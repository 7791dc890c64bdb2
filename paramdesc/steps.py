"""Telling a training step from a read, for the maps whose state moves with the one only.

A step writes to what is trained in place, and torch counts that in the version of the
tensor. A chain remembers the versions that its last evaluation in training mode saw.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch.nn import Module

from paramdesc.base import Parametrization
from paramdesc.dynamo import is_dynamo_compiling, is_led_by_guards
from paramdesc.mode import has_transforms

__all__ = [
    "count_steps",
    "follow_steps",
    "has_stepped",
    "is_warm",
    "mark_due",
    "start_maps",
    "warm_maps",
]


def is_warm(parametrization: Module) -> TypeGuard[Parametrization]:
    """Whether it keeps a state that its next evaluation starts from."""
    return isinstance(parametrization, Parametrization) and bool(parametrization.warm_start)


def count_steps(chain: Module) -> dict[int, int]:
    """Remember which tensors are trained in `chain`, by identity, and the version of each."""
    tensors = [*chain.parameters(), *(x for _, x in chain.named_buffers(recurse=False))]
    steps = {id(x): 0 if x.is_inference() else x._version for x in tensors}
    chain.__dict__["_steps"] = steps
    return steps


def count_loaded(chain: Module, incompatible_keys: Any) -> None:
    """Loading a state_dict is no step."""
    count_steps(chain)


def has_stepped(chain: Module) -> bool:
    """Whether what is trained in `chain` was written to since it was last asked.

    Not if it is other tensors now: `functional_call` lends them, conversions make them.
    """
    if is_dynamo_compiling():
        # versions cannot be compiled: where guards do not watch them, each call is a step
        return not is_led_by_guards(chain)
    if chain.__dict__.pop("_stepped", False):
        return True  # said by the chain that this is a replica of
    if has_transforms():
        return False  # what a transform wraps is lent, too
    before = chain.__dict__["_steps"]
    now = count_steps(chain)
    chain.__dict__["_steps"] = {**before, **now} if len(before) < 4 * len(now) else now
    return any(before.get(place, version) != version for place, version in now.items())


def warm_maps(chain: Any) -> dict[str, Parametrization]:
    """The maps in `chain` that keep a state, those inside of other maps too, by their paths.

    Not those of tensors in it that are parametrized in their turn: their own chains lead them.
    """
    found: dict[str, Module] = {str(i): module for i, module in enumerate(chain.maps())}
    places = list(found)
    for place in places:  # it grows
        for name, child in found[place].named_children():
            if name != "parametrizations":
                found[f"{place}.{name}"] = child
                places.append(f"{place}.{name}")
    return {place: module for place, module in found.items() if is_warm(module)}


def mark_due(chain: Any) -> None:
    """Tell the maps in `chain` that a step was made: the next evaluation moves their states."""
    for parametrization in warm_maps(chain).values():
        parametrization.is_due = parametrization.training


def start_maps(chain: Any, *, anew: bool) -> None:
    """Give the maps in `chain` that keep a state their first one; all of them if `anew`.

    An evaluation does that: only there does a map inside of another meet what it is applied to.
    """
    warm = warm_maps(chain)
    if not warm:
        return
    if "_steps" not in chain.__dict__:
        chain.register_load_state_dict_post_hook(count_loaded)
    count_steps(chain)
    for parametrization in warm.values():
        parametrization.is_led, parametrization.is_due = True, False
        if anew:
            parametrization.lose_state()
    apply_maps(chain)


def follow_steps(chain: Any) -> None:
    """Move the states of the maps in `chain` on, if a training step was made."""
    if chain.training and "_steps" in chain.__dict__ and has_stepped(chain):
        mark_due(chain)
        apply_maps(chain)


@torch.inference_mode(False)
@torch.no_grad()
def apply_maps(chain: Any) -> None:
    """Evaluate `chain` for what that does to the states of its maps."""
    values: tuple[Any, ...] = chain.originals()
    for parametrization in chain.maps():
        values = (parametrization(*values),)
