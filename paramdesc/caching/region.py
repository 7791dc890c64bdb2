"""Reading in a checkpointed region, whose two runs must get the same tensors."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

from torch.autograd.graph import saved_tensors_hooks

from paramdesc.caching.active import RerunScope, find_scope, rerun
from paramdesc.caching.in_scope import read_in_scopes
from paramdesc.caching.scopes import Scope
from paramdesc.caching.switched_off import disabling_scopes, find_stand_in
from paramdesc.chain.clock import Clock
from paramdesc.chain.evaluation import evaluate
from paramdesc.torch_internals.checkpointing import is_rerun, region_of

__all__ = ["read_in_region"]


def read_in_region(hooks: Any, scopes: tuple[Scope, ...], chain: Any) -> Any:
    """Read `chain` in `scopes` while hooks for saved tensors are set, mostly by a checkpoint."""
    disabling = disabling_scopes(scopes)
    stand_in = find_stand_in(disabling, chain) if disabling else None
    repeating = next((scope for scope in scopes if not scope.disables), None)
    if isinstance(repeating, RerunScope):
        if stand_in is not None:
            return stand_in.value
        # a region inside a region that is recomputed: its saved tensors are never used
        return repeating.rerun.read(chain, evaluate) if is_rerun(hooks) else evaluate(chain)
    if is_rerun(hooks):  # no scope was open around the first run
        inside = tuple(scope for scope in disabling if not scope.is_around(hooks))
        stand_in = find_stand_in(inside, chain)
        return evaluate(chain) if stand_in is None else stand_in.value
    around = tuple(scope for scope in disabling if scope.is_around(hooks))
    region = region_of(hooks, partial(rerun, around))
    if region is None:
        return read_in_scopes(scopes, chain, evaluate)
    if stand_in is not None:
        return stand_in.value  # the same tensor in both runs
    evaluated: list[Any] = []

    def evaluate_watched(chain: Any, clock: Clock | None = None) -> Any:
        owner = find_scope(chain)
        # the graph behind a leaf is not part of the region: the backward pass of the region stops
        # at the leaf
        is_apart = owner is not None and owner.deferral is not None
        with unsaved() if is_apart else nullcontext():
            evaluated.append(evaluate(chain, clock))
        return evaluated[-1]

    value = read_in_scopes(scopes, chain, evaluate_watched)
    region.add(chain, value, is_fresh=any(value is fresh for fresh in evaluated))
    return value


def unsaved() -> saved_tensors_hooks:
    """Save tensors without the hooks that are set outside."""
    return saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
