"""The scopes that are open in the calling thread or task. Only this file uses the context variable.

A value belongs to the outermost active scope that covers its chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from paramdesc.caching.deferral import Deferral
from paramdesc.caching.early import refuse_early
from paramdesc.caching.expiry import expire
from paramdesc.caching.left_open import left_open
from paramdesc.caching.pipelines import OpenScopes, watch_pipelines
from paramdesc.caching.record import Reason
from paramdesc.caching.scopes import AUTO, Scope
from paramdesc.caching.switched_off import DisablingScope
from paramdesc.caching.traced_scopes import TRACED
from paramdesc.chain.transient import transient_of
from paramdesc.errors import add_note
from paramdesc.torch_internals.checkpointing import Rerun
from paramdesc.torch_internals.dynamo import is_dynamo_compiling

__all__ = [
    "RerunScope",
    "active_scopes",
    "close_innermost",
    "end_scope",
    "end_traced",
    "find_scope",
    "forget",
    "innermost_of",
    "leave_scope",
    "open_first",
    "open_scope",
    "rerun",
]

_SCOPES: ContextVar[tuple[Scope, ...]] = ContextVar(
    "paramdesc.caching.scopes", default=()
)  # outermost first


active_scopes = _SCOPES.get


def open_scope(scope: Scope) -> None:
    """Make `scope` the innermost one of the calling thread or task."""
    if is_dynamo_compiling():
        TRACED.scopes = (*TRACED.scopes, scope)
        return
    if scope.deferral is not None:
        refuse_early(open_deferrals)
    watch_pipelines(_OPEN)
    for ended in left_open(active_scopes(), scope.frame):
        end_scope(ended, error=KeyboardInterrupt())
    scope.opened = TRACED.opened
    scope.opened.add(scope)
    opened = (scope,) if scope.lasting is None else (scope.lasting, scope)
    _SCOPES.set(active_scopes() + opened)  # last: an interrupt finds it open, or nothing done


def leave_scope(scope: Scope) -> None:
    """Deactivate `scope` in the calling thread or task."""
    active = active_scopes()
    count = 1 if scope.lasting is None else 2
    if active and active[-1] is scope:
        _SCOPES.set(active[:-count])
    else:
        ended = (scope, scope.lasting)
        _SCOPES.set(tuple(other for other in active if other not in ended))
    TRACED.opened.discard(scope)


def open_first(scope: DisablingScope) -> None:
    """Make `scope` the first one that each read in the calling thread or task looks into."""
    for ended in left_open(active_scopes(), scope.frame):
        end_scope(ended, error=KeyboardInterrupt())
    scope.opened = TRACED.opened
    scope.opened.add(scope)
    _SCOPES.set((scope, *active_scopes()))


def innermost_of(scopes: list[Scope]) -> Scope | None:
    """The innermost scope in `scopes` that is active here.

    `scopes` may hold scopes of several threads. If none of them is active here, as in a generator
    that is closed in another context, this is the last one that is still open.
    """
    active = active_scopes()
    if active and active[-1] in scopes:
        return active[-1]
    found = [*scopes, *(scope for scope in active if scope in scopes)]
    return next((scope for scope in reversed(found) if not scope.is_closed), None)


def end_scope(
    scope: Scope | None, scopes: list[Scope] | None = None, error: BaseException | None = None
) -> None:
    """End `scope`, and remove it from `scopes`, the open scopes of its owner.

    Deferred gradients reach the originals, or are dropped if an `error` ends the scope. Processes
    that have divided batches meet, except after an `error`: the others may never come. If the call
    is interrupted, call it again.
    """
    if scope is None:
        return
    active = active_scopes()
    if scope in active and active[-1] is not scope:
        for ended in left_open(active[active.index(scope) + 1 :], scope.frame):
            end_scope(ended, error=KeyboardInterrupt())
    leave_scope(scope)
    try:
        if scope.deferral is not None:
            settle(scope.deferral, error)
        if scope.meeting is not None and error is None:
            scope.meeting.end()
    finally:
        if scopes and scope in scopes:
            scopes.remove(scope)
        if scope.lasting is not None:
            scope.lasting.close()
        scope.close()


def end_traced(scopes: list[Scope]) -> None:
    """End the last scope in `scopes`, in compiled code."""
    scope = scopes[-1]
    TRACED.scopes = tuple(other for other in TRACED.scopes if other is not scope)
    scopes.remove(scope)
    scope.close()


def close_innermost(scopes: list[Scope], error: BaseException | None = None) -> None:
    """End the innermost active scope in `scopes`, and remove it from the list."""
    if is_dynamo_compiling():
        end_traced(scopes)
    else:
        end_scope(innermost_of(scopes), scopes, error)


def settle(deferral: Deferral, error: BaseException | None) -> None:
    """Send the deferred gradients to the originals, or drop all of them after an error."""
    if error is None:
        deferral.backward()
        return
    names = deferral.drop()
    if names:
        listed = ", ".join(map(repr, names))
        add_note(error, f"the deferred gradients of {listed} were dropped: .grad is unchanged")


def open_deferrals() -> list[Deferral]:
    """The deferred gradients of the open scopes."""
    return [scope.deferral for scope in deferred_scopes()]


def deferred_scopes() -> list[Any]:
    """The open scopes that defer gradients."""
    return [scope for scope in active_scopes() if scope.deferral is not None]


def forget(chain: Any, reason: Reason = Reason.FORGOTTEN) -> None:
    """Drop the values of `chain` from the active scopes and from `AUTO`, and expire all others."""
    expire(chain, reason)
    transient_of(chain).bound = None
    for scope in (AUTO, *active_scopes()):
        scope.drop(chain, reason)


def find_scope(chain: Any, *, lasts: bool = False) -> Scope | None:
    """The outermost scope for values of `chain`, or with `lasts` for those that outlive a block."""
    if lasts and AUTO.covers(chain):
        return AUTO
    for scope in active_scopes():
        if scope.lasts is lasts and scope.covers(chain):
            return scope
    return None


class RerunScope(Scope):
    """The only scope while a checkpointed region is recomputed: repeats its first reads."""

    __slots__ = ("rerun",)

    def __init__(self, rerun: Rerun) -> None:
        super().__init__(frozenset())
        self.rerun = rerun


@contextmanager
def rerun(disabling: tuple[DisablingScope, ...], run: Rerun) -> Iterator[None]:
    """Answer every read inside from `run`.

    No other scope is open but `disabling`, in which the first run was.
    """
    before = active_scopes()
    try:
        _SCOPES.set((*disabling, RerunScope(run)))
        yield
    finally:
        _SCOPES.set(before)


@contextmanager
def without_scopes() -> Iterator[None]:
    """A block in which no scope is open but those that switch chains off."""
    before = active_scopes()
    try:
        _SCOPES.set(tuple(scope for scope in before if scope.disables))
        yield
    finally:
        _SCOPES.set(before)


_OPEN = OpenScopes(active_scopes, deferred_scopes, without_scopes)
