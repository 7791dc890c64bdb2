"""Reading a parametrized tensor while a scope is open, or with `auto_cache`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paramdesc.caching.active import active_scopes, find_scope
from paramdesc.caching.current import drop_stale, serves_without_gradients
from paramdesc.caching.fresh import evaluate_into, keep_in, note_use
from paramdesc.caching.last_read import remembered
from paramdesc.caching.lasting import evaluate_to_last, may_last
from paramdesc.caching.observer import OBSERVED
from paramdesc.caching.scopes import AUTO, Scope
from paramdesc.caching.slots import AUTO_CACHED
from paramdesc.caching.together import evaluate_together
from paramdesc.chain.evaluation import evaluate as evaluate_plainly
from paramdesc.torch_internals.dynamo import run_eagerly
from paramdesc.torch_internals.mode import current_mode

__all__ = ["evaluate_and_keep", "read_in_scopes"]


@run_eagerly  # after a graph break, Dynamo would trace the checks and guard the maps
def read_in_scopes(scopes: tuple[Scope, ...], chain: Any, evaluate: Callable[..., Any]) -> Any:
    """The value of `chain`: a current one from one of `scopes`, otherwise a fresh one."""
    for scope in scopes:
        entry = scope.entries.get(chain)
        if entry is not None:
            cause = entry.why_stale()
            if cause is None:
                entry.record.hits += 1
                if OBSERVED.count:
                    OBSERVED.note(entry)
                return entry.value
            if scope.deferral is not None and serves_without_gradients(entry, cause):
                entry.record.hits += 1
                return entry.value.detach()
            drop_stale(scope, chain, entry, cause)
            entry = None  # free the old value before the new one is made
    return read_afresh(chain, evaluate)


def read_afresh(chain: Any, evaluate: Callable[..., Any]) -> Any:
    """A value that no open scope keeps: the one that `auto_cache` keeps, or a fresh one."""
    if AUTO_CACHED in chain.__dict__:
        entry = AUTO.entries.get(chain)
        if entry is not None:
            cause = entry.why_stale()
            if cause is None:
                entry.record.hits += 1
                note_use(entry)
                return entry.value
            drop_stale(AUTO, chain, entry, cause)
            entry = None
    return evaluate_and_keep(chain, evaluate)


def evaluate_and_keep(chain: Any, evaluate: Callable[..., Any]) -> Any:
    """A fresh value, kept in the scope that it belongs to, if any."""
    if evaluate is evaluate_plainly and any(scope.batched for scope in active_scopes()):
        found = evaluate_together(chain)
        if found is not None:
            return found
    dependencies = None
    lasting = find_scope(chain, lasts=True)
    if lasting is not None and may_last(chain):
        with lasting.record_of(chain).lock:  # other threads wait, and then find the value
            entry = lasting.entries.get(chain)
            if entry is not None and entry.why_stale() is None:
                entry.record.hits += 1
                note_use(entry)
                return entry.value
            entry = None
            value, dependencies = evaluate_to_last(lasting, chain, evaluate)
        if dependencies is None:
            return remembered(chain, value)
    owner = find_scope(chain)
    if dependencies is not None:
        if owner is not None:
            owner.record_of(chain).misses += 1
        return keep_in(owner, chain, value, current_mode(), dependencies)
    if owner is None:
        return remembered(chain, evaluate(chain))
    return evaluate_into(owner, chain, evaluate)
