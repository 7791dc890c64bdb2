"""Telling a training step from a read, for the maps whose state moves with the one only.

A step writes to what is trained in place, and torch counts that in the version of the
tensor. A chain remembers the versions that its last evaluation in training mode saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.chain.parametrization import Parametrization
from paramdesc.torch_internals.dynamo import is_dynamo_compiling, is_led_by_guards
from paramdesc.torch_internals.mode import has_transforms

__all__ = [
    "count_steps",
    "follow_steps",
    "has_stepped",
    "is_step_pending",
    "is_warm",
    "mark_due",
    "start_maps",
    "warm_maps",
]


def is_warm(parametrization: Module) -> TypeGuard[Parametrization]:
    """Whether it keeps a state that its next evaluation starts from."""
    return isinstance(parametrization, Parametrization) and bool(parametrization.warm_start)


class Steps:
    """What a chain remembers: the tensors that are trained in it, by identity, with the version
    of each, and the maps that keep a state. Modules that are added to maps later are not seen.
    """

    __slots__ = ("children", "holders", "lent", "own", "versions", "warm")

    def __init__(self, chain: Any) -> None:
        self.look_into(chain)
        self.versions = self.versions_now(chain)
        self.own = set(self.versions)
        # of others, a new one may get the identity of one that is no more. Not of its own:
        # what a weak reference leads to cannot be swapped
        self.lent: dict[int, Any] = {}

    def tensors(self, chain: Any) -> Iterator[Tensor]:
        for holder in (*self.holders, chain._buffers):
            yield from (x for x in holder.values() if x is not None)

    def lent_now(self, chain: Any) -> dict[int, Any]:
        """References to the tensors that were not there when the steps were counted."""
        return {id(x): ref(x) for x in self.tensors(chain) if id(x) not in self.own}

    def look_into(self, chain: Any) -> None:
        self.children = len(chain._modules)
        self.holders = [module._parameters for module in chain.modules()]
        self.warm = warm_maps(chain)

    def versions_now(self, chain: Any) -> dict[int, int]:
        if len(chain._modules) != self.children:  # an original was parametrized, or is no more
            self.look_into(chain)
        return {id(x): 0 if x.is_inference() else x._version for x in self.tensors(chain)}


def count_steps(chain: Module) -> None:
    """Take all steps that were made for seen."""
    chain.__dict__["_steps"] = Steps(chain)


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
        return True  # said by the chain that this is a copy of
    if has_transforms():
        return False  # what a transform wraps is lent, too
    steps: Steps | None = chain.__dict__["_steps"]
    if steps is None:
        return False  # a replica lives for one call
    before, now = steps.versions, steps.versions_now(chain)
    if before == now:
        return False
    met, lent = steps.lent, steps.lent_now(chain)
    is_short = len(before) < 4 * len(now)
    steps.versions = {**before, **now} if is_short else now
    steps.lent = {**met, **lent} if is_short else lent
    return any(
        before.get(place, version) != version
        and (place in steps.own or met[place]() is lent[place]())
        for place, version in now.items()
    )


def is_step_pending(chain: Module) -> bool:
    """Whether the next evaluation in training mode will be the first after a step."""
    steps: Steps | None = chain.__dict__["_steps"]
    if steps is None or "_stepped" in chain.__dict__:
        return bool(chain.__dict__.get("_stepped"))
    now = steps.versions_now(chain)
    return any(steps.versions.get(place, version) != version for place, version in now.items())


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
    steps: Steps | None = chain.__dict__["_steps"]
    for parametrization in (steps.warm if steps else warm_maps(chain)).values():
        parametrization.__dict__["is_due"] = parametrization.training


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
