"""The scopes that are open here: the one door to the context variable.

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
from paramdesc.caching.pipelines import watch_pipelines
from paramdesc.caching.record import Reason
from paramdesc.caching.scopes import AUTO, Scope
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
        watch_pipelines(deferred_scopes)
    for ended in left_open(active_scopes(), scope.frame):
        end_scope(ended, error=KeyboardInterrupt())
    scope.opened = TRACED.opened
    scope.opened.add(scope)
    opened = (scope,) if scope.lasting is None else (scope.lasting, scope)
    _SCOPES.set(active_scopes() + opened)  # last: an interrupt finds it open, or nothing done


def leave_scope(scope: Scope) -> None:
    """Let `scope` be active no more in the calling thread or task."""
    active = active_scopes()
    count = 1 if scope.lasting is None else 2
    if active and active[-1] is scope:
        _SCOPES.set(active[:-count])
    else:
        ended = (scope, scope.lasting)
        _SCOPES.set(tuple(other for other in active if other not in ended))
    TRACED.opened.discard(scope)


def innermost_of(scopes: list[Scope]) -> Scope | None:
    """The innermost active one of `scopes`.

    Threads may have opened several; if none is active here, as in a generator that another
    context closes, it is the last one that is open.
    """
    active = active_scopes()
    if active and active[-1] in scopes:
        return active[-1]
    found = [*scopes, *(scope for scope in active if scope in scopes)]
    return next((scope for scope in reversed(found) if not scope.is_closed), None)


def end_scope(
    scope: Scope | None, scopes: list[Scope] | None = None, error: BaseException | None = None
) -> None:
    """End `scope`, and take it out of the list of those that its owner has open.

    What was deferred reaches the originals, or is dropped if an `error` ends the scope. If
    this is interrupted, it may be called again.
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
    finally:
        if scopes and scope in scopes:
            scopes.remove(scope)
        if scope.lasting is not None:
            scope.lasting.close()
        scope.close()


def end_traced(scopes: list[Scope]) -> None:
    """End the last one of `scopes`, in compiled code."""
    scope = scopes[-1]
    TRACED.scopes = tuple(other for other in TRACED.scopes if other is not scope)
    scopes.remove(scope)
    scope.close()


def close_innermost(scopes: list[Scope], error: BaseException | None = None) -> None:
    """End the innermost active one of `scopes`, and take it out of the list."""
    if is_dynamo_compiling():
        end_traced(scopes)
    else:
        end_scope(innermost_of(scopes), scopes, error)


def settle(deferral: Deferral, error: BaseException | None) -> None:
    """Let the gradients that wait reach the originals; none of them after an error."""
    if error is None:
        deferral.backward()
        return
    names = deferral.drop()
    if names:
        listed = ", ".join(map(repr, names))
        add_note(error, f"the deferred gradients of {listed} were dropped: .grad is as before")


def open_deferrals() -> list[Deferral]:
    """What the open scopes hold of deferred gradients."""
    return [scope.deferral for scope in deferred_scopes()]


def deferred_scopes() -> list[Any]:
    """The open scopes that defer gradients."""
    return [scope for scope in active_scopes() if scope.deferral is not None]


def forget(chain: Any) -> None:
    """Drop what the active scopes hold of `chain`, and what lasts; end what others hold."""
    expire(chain, Reason.FORGOTTEN)
    transient_of(chain).bound = None
    for scope in (AUTO, *active_scopes()):
        scope.drop(chain)


def find_scope(chain: Any, *, lasts: bool = False) -> Scope | None:
    """The outermost scope that takes values of `chain` which last, or those that do not."""
    scopes = active_scopes()
    if lasts and AUTO.covers(chain):
        return AUTO
    return next((scope for scope in scopes if scope.lasts is lasts and scope.covers(chain)), None)


class RerunScope(Scope):
    """The one scope of the second run of a checkpointed region: it answers as the first run's."""

    __slots__ = ("rerun",)

    def __init__(self, rerun: Rerun) -> None:
        super().__init__(frozenset())
        self.rerun = rerun


@contextmanager
def rerun(run: Rerun) -> Iterator[None]:
    """No scope is open inside, and every read is answered by `run`."""
    before = active_scopes()
    try:
        _SCOPES.set((RerunScope(run),))
        yield
    finally:
        _SCOPES.set(before)
