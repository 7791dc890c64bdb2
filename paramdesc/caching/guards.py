"""What the guards of compiled code ask of scopes, before each call, and what it then fetches."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch

from paramdesc.caching.active import active_scopes, find_scope
from paramdesc.caching.fresh import evaluate_into
from paramdesc.caching.lasting import evaluate_to_last, may_last
from paramdesc.caching.read import read
from paramdesc.caching.scopes import AUTO
from paramdesc.chain.evaluation import evaluate
from paramdesc.torch_internals.checkpointing import saving_hooks
from paramdesc.torch_internals.mode import is_inference, is_plain

__all__ = ["fetch", "keep"]


def keep(chain: Any) -> Any:
    """What an active scope keeps of `chain`, evaluated now if need be, or None.

    The guards of compiled code ask this before each call. They must not raise: what a map
    raises, it raises again when the compiled code evaluates it.
    """
    if is_inference():  # torch.compile traces without it: there, no tensor is an inference tensor
        with torch.inference_mode(False), torch.no_grad():
            return keep(chain)
    lasting = find_scope(chain, lasts=True)
    lasts = lasting is not None and may_last(chain)
    scope = lasting if lasts else find_scope(chain)
    if scope is None or chain in scope.refused or not is_plain() or saving_hooks(True):
        return None
    with scope.record_of(chain).lock:
        entry = scope.entries.get(chain)
        if entry is not None and entry.why_stale() is None:
            return entry.value
        scope.entries.pop(chain, None)
        entry = None
        with suppress(Exception):
            (evaluate_to_last if lasts else evaluate_into)(scope, chain, evaluate)
        entry = scope.entries.get(chain)
        if entry is None:
            if not lasts:
                scope.refuse(chain)
            return None
        scope.announce(chain)
        return entry.value


def fetch(chain: Any) -> Any:
    """`read` for compiled code whose guards have let `keep` evaluate."""
    if is_inference():
        with torch.inference_mode(False), torch.no_grad():
            return fetch(chain)
    for scope in (AUTO, *active_scopes()):
        if chain in scope.ahead:
            scope.ahead.discard(chain)
            entry = scope.entries.get(chain)
            if entry is not None and entry.why_stale() is None:
                return entry.value  # counted as a miss when it was evaluated
            entry = None
    return read(chain)
