"""Telling a training step from a read, for the maps whose state moves with the one only.

A step writes to what is trained in place, and torch counts that in the version of the
tensor. A chain remembers the versions that its last evaluation in training mode saw.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch.nn import Module

from paramdesc.base import Parametrization
from paramdesc.dynamo import is_dynamo_compiling
from paramdesc.mode import has_transforms

__all__ = ["count_steps", "has_stepped", "is_warm", "start_maps"]


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
        return True  # versions cannot be compiled: there, each call is taken for a step
    if chain.__dict__.pop("_stepped", False):
        return True  # said by the chain that this is a replica of
    if has_transforms():
        return False  # what a transform wraps is lent, too
    before = chain.__dict__["_steps"]
    now = count_steps(chain)
    chain.__dict__["_steps"] = {**before, **now} if len(before) < 4 * len(now) else now
    return any(before.get(place, version) != version for place, version in now.items())


def start_maps(chain: Any, *, anew: bool) -> None:
    """Give the maps of `chain` that keep a state their first one; all of them if `anew`."""
    if any(map(is_warm, chain.maps())):
        with torch.no_grad():
            start_warm_maps(chain, anew)


def start_warm_maps(chain: Any, anew: bool) -> None:
    if "_steps" not in chain.__dict__:
        chain.register_load_state_dict_post_hook(count_loaded)
    count_steps(chain)
    values: tuple[Any, ...] = chain.originals()
    for parametrization in chain.maps():
        if is_warm(parametrization):
            parametrization.is_led = True
            if anew or not parametrization.has_state():
                parametrization.reset(*values)
        values = (parametrization(*values),)
