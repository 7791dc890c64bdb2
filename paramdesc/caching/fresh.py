"""Evaluating a chain, and keeping the value in an ordinary scope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd import forward_ad

from paramdesc.caching.dependencies import Dependencies
from paramdesc.caching.entry import Entry
from paramdesc.caching.expiry import Expiry
from paramdesc.caching.last_read import remembered
from paramdesc.caching.observer import OBSERVED
from paramdesc.caching.scopes import Scope
from paramdesc.chain.clock import Clock
from paramdesc.torch_internals.mode import Mode, current_mode, is_plain

__all__ = ["evaluate_into", "keep_in", "note_use"]


def evaluate_into(scope: Scope, chain: Any, evaluate: Callable[..., Any]) -> Any:
    """A fresh value of `chain`, kept in `scope` if every change to it can be detected."""
    record = scope.record_of(chain)
    record.misses += 1
    record.together = 1
    mode, dependencies = current_mode(), Dependencies(chain)
    value = dependencies.evaluate(lambda: evaluate(chain, Clock(record.seconds)))
    remembered(chain, value)
    return keep_in(scope, chain, value, mode, dependencies)


def keep_in(
    scope: Scope | None,
    chain: Any,
    value: Any,
    mode: Mode,
    dependencies: Dependencies,
    batch: list[Expiry] | None = None,
) -> Any:
    """Keep a fresh value in `scope` if possible, and return what the reader gets."""
    if scope is None or scope.is_closed or not isinstance(value, Tensor):
        return remembered(chain, value)
    record = scope.record_of(chain)
    deferral = scope.deferral if value.requires_grad and may_be_cut(value) else None
    if deferral is None or not deferral.may_cut:
        entry = Entry(chain, value, mode, dependencies, record, batch=batch)
        if not entry.may_be_kept():
            return remembered(chain, value)
        scope.entries[chain] = entry
        note_use(entry)
        return value
    leaf, collector = deferral.leaf_of(value, record.name)
    entry = Entry(chain, leaf, mode, dependencies, record)
    if not entry.may_be_kept():
        return remembered(chain, value)
    deferral.add(value, entry, collector)
    scope.entries[chain] = entry
    note_use(entry)
    return leaf


def note_use(entry: Entry) -> None:
    """Note that the evaluations observed in this thread, if any, use this value."""
    if OBSERVED.count:
        OBSERVED.note(entry)


def may_be_cut(value: Tensor) -> bool:
    """Whether the graph of `value` may be cut. Transforms, traces and forward AD need it."""
    return is_plain() and forward_ad.unpack_dual(value).tangent is None  # type: ignore[no-untyped-call]
