"""Kept values for compiled code: its guards call `keep`, and its graph input is `fetch`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch

from paramdesc.caching.active import active_scopes, find_scope
from paramdesc.caching.in_scope import evaluate_and_keep
from paramdesc.caching.lasting import may_last
from paramdesc.caching.read import read
from paramdesc.caching.scopes import AUTO
from paramdesc.chain.evaluation import evaluate
from paramdesc.torch_internals.checkpointing import saving_hooks
from paramdesc.torch_internals.mode import is_inference, is_plain

__all__ = ["fetch", "keep"]


def keep(chain: Any) -> Any:
    """The value of `chain` that an active scope keeps, evaluated if necessary; None without one.

    The guards of compiled code call this before each call. They must not raise: an exception in a
    map is raised again when the compiled code evaluates it.
    """
    if is_inference():  # torch.compile traces outside of inference mode
        with torch.inference_mode(False), torch.no_grad():
            return keep(chain)
    lasting = find_scope(chain, lasts=True)
    lasts = lasting is not None and may_last(chain)
    owner = find_scope(chain)
    scope = lasting if lasts else owner
    if scope is None or chain in scope.refused or not is_plain() or saving_hooks(True):
        return None
    with scope.record_of(chain).lock:
        for keeper in (scope, owner):
            entry = None if keeper is None else keeper.entries.get(chain)
            if entry is not None and entry.why_stale() is None:
                return entry.value
        scope.entries.pop(chain, None)
        entry = None
        with suppress(Exception):
            evaluate_and_keep(chain, evaluate)
        for keeper in (scope, owner):
            entry = None if keeper is None else keeper.entries.get(chain)
            if entry is not None and entry.why_stale() is None:
                keeper.announce(chain)
                return entry.value
        if owner is not None:
            owner.refuse(chain)
        return None


def fetch(chain: Any) -> Any:
    """`read` for compiled code, after its guards have called `keep`."""
    if is_inference():
        with torch.inference_mode(False), torch.no_grad():
            return fetch(chain)
    for scope in (AUTO, *active_scopes()):
        if chain in scope.ahead:
            scope.ahead.discard(chain)
            entry = scope.entries.get(chain)
            if entry is not None and entry.why_stale() is None:
                return entry.value  # already counted as a miss by `keep`
            entry = None
    return read(chain)
