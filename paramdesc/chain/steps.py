"""Detects training steps, for maps with a warm start, whose state moves once per step.

There are three signs of a step: an optimizer has stepped (`watched`), the version of a trained
tensor has changed, or, on a CPU, entries in a sample of it have. A chain compares with what its
last evaluation in training mode saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import ref

from torch import Tensor
from torch.nn import Module

from paramdesc.chain.captured import begins_capture
from paramdesc.chain.warm import warm_maps
from paramdesc.chain.watched import tell_of_steps, watch_chain
from paramdesc.torch_internals.dynamo import is_dynamo_compiling, is_led_by_guards
from paramdesc.torch_internals.mode import has_transforms, is_plain
from paramdesc.torch_internals.optimizers import StepMade
from paramdesc.torch_internals.sample import differs, sample

__all__ = [
    "count_steps",
    "has_stepped",
    "is_step_pending",
    "mark_due",
    "say_stepped",
]


class Steps:
    """What a chain remembers between steps.

    These are the tensors that are trained in it, by identity, with the version and a sample of
    each, and its maps with a warm start. Modules that are added to a map later are not seen.
    """

    __slots__ = ("children", "holders", "lent", "modules", "own", "samples", "versions", "warm")

    def __init__(self, chain: Any) -> None:
        self.look_into(chain)
        self.versions = self.versions_now(chain)
        self.samples = self.samples_now(chain)
        self.own = set(self.versions)
        # a freed tensor may pass its identity to a new one, so tensors that come later are also
        # compared by weak references. Not the own ones: tensors with weak references cannot be
        # swapped by torch.utils.swap_tensors
        self.lent: dict[int, Any] = {}

    def tensors(self, chain: Any) -> Iterator[Tensor]:
        for holder in (*self.holders, chain._buffers):
            yield from (x for x in holder.values() if x is not None)

    def lent_now(self, chain: Any) -> dict[int, Any]:
        """Weak references to the tensors that were not in the chain when this object was made."""
        return {id(x): ref(x) for x in self.tensors(chain) if id(x) not in self.own}

    def look_into(self, chain: Any) -> None:
        self.children = len(chain._modules)
        self.modules = [module for module in chain.modules() if module is not chain]
        self.holders = [module._parameters for module in (chain, *self.modules)]
        self.warm = warm_maps(chain)

    def versions_now(self, chain: Any) -> dict[int, int]:
        if len(chain._modules) != self.children:  # an original was parametrized, or no longer is
            self.look_into(chain)
        return {id(x): 0 if x.is_inference() else x._version for x in self.tensors(chain)}

    def samples_now(self, chain: Any) -> dict[int, Tensor | None]:
        return {id(x): sample(x) for x in self.tensors(chain)}

    def is_rewritten(self, chain: Any) -> bool:
        """Whether a sample shows a write that torch has not counted.

        A change of one entry does not count: numerical differentiation moves the entries singly.
        """
        if not is_plain():
            return False  # the tensors are fake, or the comparison would be recorded
        seen = self.samples
        return any(
            differs(x, seen[id(x)], at_least=2) for x in self.tensors(chain) if id(x) in seen
        )

    def has_changed(self, now: dict[int, int], lent: dict[int, Any]) -> bool:
        """Whether a tensor was written to since its version was remembered."""
        before, met = self.versions, self.lent
        return any(
            before.get(place, version) != version
            and (place in self.own or met[place]() is lent[place]())
            for place, version in now.items()
        )

    def remember(self, chain: Any, now: dict[int, int], lent: dict[int, Any]) -> None:
        """Consider all writes so far as seen."""
        is_short = len(self.versions) < 4 * len(now)
        self.versions = {**self.versions, **now} if is_short else now
        self.lent = {**self.lent, **lent} if is_short else lent
        if is_plain():
            self.samples |= {id(x): sample(x) for x in self.tensors(chain) if id(x) in self.samples}


def count_steps(chain: Module) -> None:
    """Consider all steps so far as seen, and notice later ones."""
    chain.__dict__["_steps"] = Steps(chain)
    watch_chain(chain)


def notice_step(chain: Any, step: StepMade) -> None:
    """Note a step of an optimizer, if it wrote to a trained tensor of `chain`."""
    steps: Steps | None = chain.__dict__.get("_steps")
    if steps is not None and step.wrote(steps.tensors(chain), (chain, *steps.modules)):
        say_stepped(chain)


def say_stepped(chain: Any) -> None:
    """Make the next evaluation of `chain` in training mode the first one after a step."""
    if chain.__dict__.get("_steps") is not None:
        chain.__dict__["_stepped"] = True


tell_of_steps(notice_step)


def has_stepped(chain: Module) -> bool:
    """Whether a trained tensor of `chain` was written to since the last call.

    Tensors that were exchanged do not count: `functional_call` lends others, conversions make new
    ones.
    """
    if is_dynamo_compiling():
        # versions cannot be read in compiled code: without guards on them, each call is a step
        return not is_led_by_guards(chain)
    if has_transforms():
        return False  # tensors wrapped by a transform are lent, too
    is_told = bool(chain.__dict__.pop("_stepped", False)) | begins_capture(chain)
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


def mark_due(chain: Any) -> None:
    """Mark the states of the maps in `chain` as due: the next evaluation moves them."""
    steps: Steps | None = chain.__dict__["_steps"]
    for parametrization in (steps.warm if steps else warm_maps(chain)).values():
        parametrization.__dict__["is_due"] = parametrization.training
