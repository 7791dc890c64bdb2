"""Telling a training step from a read, for the maps whose state moves with the one only.

What is trained was written to if one of three witnesses says so: an optimizer that has made a
step (`watched`), the version that torch counts, or a few entries of the tensor, on a CPU. A chain
remembers what its last evaluation in training mode saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeGuard
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.chain.parametrization import Parametrization
from paramdesc.chain.watched import tell_of_steps, watch_chain
from paramdesc.torch_internals.dynamo import is_dynamo_compiling, is_led_by_guards
from paramdesc.torch_internals.mode import has_transforms, is_plain
from paramdesc.torch_internals.optimizers import StepMade
from paramdesc.torch_internals.sample import differs, sample

__all__ = [
    "count_steps",
    "find_what_loads",
    "follow_steps",
    "has_stepped",
    "is_step_pending",
    "is_warm",
    "mark_due",
    "save_pending",
    "say_stepped",
    "start_maps",
    "warm_maps",
]


def is_warm(parametrization: Module) -> TypeGuard[Parametrization]:
    """Whether it keeps a state that its next evaluation starts from."""
    return isinstance(parametrization, Parametrization) and bool(parametrization.warm_start)


class Steps:
    """What a chain remembers: the tensors that are trained in it, by identity, with the version
    and a few entries of each, and the maps that keep a state. Modules that are added to maps later
    are not seen.
    """

    __slots__ = ("children", "holders", "lent", "modules", "own", "samples", "versions", "warm")

    def __init__(self, chain: Any) -> None:
        self.look_into(chain)
        self.versions = self.versions_now(chain)
        self.samples = self.samples_now(chain)
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
        self.modules = [module for module in chain.modules() if module is not chain]
        self.holders = [module._parameters for module in (chain, *self.modules)]
        self.warm = warm_maps(chain)

    def versions_now(self, chain: Any) -> dict[int, int]:
        if len(chain._modules) != self.children:  # an original was parametrized, or is no more
            self.look_into(chain)
        return {id(x): 0 if x.is_inference() else x._version for x in self.tensors(chain)}

    def samples_now(self, chain: Any) -> dict[int, Tensor | None]:
        return {id(x): sample(x) for x in self.tensors(chain)}

    def is_rewritten(self, chain: Any) -> bool:
        """Whether a tensor holds other numbers than it did, though nothing has counted a write.

        One entry alone is no step: numerical derivatives move the entries one by one.
        """
        if not is_plain():
            return False  # numbers that are fake, or would be recorded
        seen = self.samples
        return any(
            differs(x, seen[id(x)], at_least=2) for x in self.tensors(chain) if id(x) in seen
        )

    def has_changed(self, now: dict[int, int], lent: dict[int, Any]) -> bool:
        """Whether a tensor was written to since these versions were remembered."""
        before, met = self.versions, self.lent
        return any(
            before.get(place, version) != version
            and (place in self.own or met[place]() is lent[place]())
            for place, version in now.items()
        )

    def remember(self, chain: Any, now: dict[int, int], lent: dict[int, Any]) -> None:
        """Take all writes up to here for seen."""
        is_short = len(self.versions) < 4 * len(now)
        self.versions = {**self.versions, **now} if is_short else now
        self.lent = {**self.lent, **lent} if is_short else lent
        if is_plain():
            self.samples |= {id(x): sample(x) for x in self.tensors(chain) if id(x) in self.samples}


def count_steps(chain: Module) -> None:
    """Take all steps that were made for seen, and notice those to come."""
    chain.__dict__["_steps"] = Steps(chain)
    watch_chain(chain)


def notice_step(chain: Any, step: StepMade) -> None:
    """Remember that an optimizer has written to what is trained in `chain`."""
    steps: Steps | None = chain.__dict__.get("_steps")
    if steps is not None and step.wrote(steps.tensors(chain), (chain, *steps.modules)):
        say_stepped(chain)


def say_stepped(chain: Any) -> None:
    """Let the next evaluation of `chain` in training mode be the first after a step."""
    if chain.__dict__.get("_steps") is not None:
        chain.__dict__["_stepped"] = True


tell_of_steps(notice_step)


def has_stepped(chain: Module) -> bool:
    """Whether what is trained in `chain` was written to since it was last asked.

    Not if it is other tensors now: `functional_call` lends them, conversions make them.
    """
    if is_dynamo_compiling():
        # versions cannot be compiled: where guards do not watch them, each call is a step
        return not is_led_by_guards(chain)
    if has_transforms():
        return False  # what a transform wraps is lent, too
    is_told = bool(chain.__dict__.pop("_stepped", False))
    steps: Steps | None = chain.__dict__["_steps"]
    if steps is None:
        return is_told  # a replica lives for one call
    now = steps.versions_now(chain)
    is_same = steps.versions == now
    if not is_told and is_same and not steps.is_rewritten(chain):
        return False
    lent = steps.lent_now(chain)
    stepped = is_told or is_same or steps.has_changed(now, lent) or steps.is_rewritten(chain)
    steps.remember(chain, now, lent)
    return stepped


def is_step_pending(chain: Module) -> bool:
    """Whether the next evaluation in training mode will be the first after a step."""
    steps: Steps | None = chain.__dict__["_steps"]
    if steps is None or "_stepped" in chain.__dict__:
        return bool(chain.__dict__.get("_stepped"))
    now = steps.versions_now(chain)
    return steps.is_rewritten(chain) or any(
        steps.versions.get(place, version) != version for place, version in now.items()
    )


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
    is_due = not anew and "_steps" in chain.__dict__ and is_step_pending(chain)
    count_steps(chain)
    chain.__dict__.pop("_stepped", None)
    if is_due:
        chain.__dict__["_stepped"] = True
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


# A state_dict has the states of the maps, and in its metadata whether a step was made after the
# last move. A run that is resumed from it then moves them when the uninterrupted one does.

PENDING = "paramdesc.step_pending"


def save_pending(chain: Module, destination: Any, prefix: str) -> None:
    """Say in the metadata of a state_dict that is made whether a step waits for an evaluation."""
    metadata = getattr(destination, "_metadata", {}).get(prefix[:-1])
    if metadata is not None and chain.__dict__.get("_steps") is not None:
        metadata[PENDING] = is_step_pending(chain)


def find_what_loads(chain: Any, state_dict: Any, prefix: str, metadata: Any) -> None:
    """Look at what is about to be loaded into `chain`, for `count_loaded`.

    What says nothing of steps was saved after one, as is usual, or by torch's engine, whose
    states move at each evaluation.
    """
    if "_steps" not in chain.__dict__:
        return
    states = [
        f"{prefix}{place}.{name}"
        for place, parametrization in warm_maps(chain).items()
        for name in parametrization.warm_start
    ]
    originals = any(
        f"{prefix}{name}" in state_dict for name in (*chain._parameters, *chain._buffers)
    )
    chain.__dict__["_loading"] = {
        "originals": originals,
        "states": all(state in state_dict for state in states),
        "pending": metadata.get(PENDING, True),
    }


def count_loaded(chain: Any, incompatible_keys: Any) -> None:
    """Loading a state_dict is no step. Originals without the states that go with them start anew.

    A hook that runs when `chain` and its maps are loaded.
    """
    loaded = chain.__dict__.pop("_loading", None)
    if loaded is None or not loaded["originals"]:
        count_steps(chain)
    elif loaded["states"]:
        count_steps(chain)
        chain.__dict__["_stepped"] = loaded["pending"]
    else:
        with suppress(Exception):  # what a map raises, it raises again when it is evaluated
            start_maps(chain, anew=True)
