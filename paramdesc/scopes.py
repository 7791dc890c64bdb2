"""The scopes in which values are kept: the one door to the context variable.

A value belongs to the outermost active scope that covers its chain.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from paramdesc.checkpointing import Rerun
from paramdesc.dynamo import is_dynamo_compiling
from paramdesc.entry import Entry
from paramdesc.fused import count_uncounted_steps
from paramdesc.scripted import OpenProgram

__all__ = [
    "TRACED",
    "RerunScope",
    "Scope",
    "active_scopes",
    "close_innermost",
    "find_scope",
    "forget",
    "open_scope",
    "rerun",
]


class Scope:
    """One active `with cached(...)`: what it covers, what it holds and how it has served.

    `hits` and `misses` count the reads that this scope answered with a kept value and with
    a fresh one. Threads that share a scope may lose counts, never values.
    """

    __slots__ = (
        "_covered",
        "ahead",
        "entries",
        "hits",
        "misses",
        "opened",
        "programs",
        "refused",
        "traced",
    )

    def __init__(self, covered: Set[Any] | None) -> None:
        self._covered = covered
        self.entries: dict[Any, Entry] = {}
        self.ahead: set[Any] = set()  # chains evaluated for a read of compiled code to come
        self.refused: set[Any] = set()  # chains whose values compiled code cannot be given
        self.traced: dict[Any, Any] = {}
        self.opened: OpenScopes | None = None
        self.programs: list[OpenProgram] = []
        self.hits = 0
        self.misses = 0

    def covers(self, chain: Any) -> bool:
        """Whether values of `chain` may be kept here."""
        return self._covered is None or chain in self._covered

    def close(self) -> None:
        """Free the values. A task that still runs inside keeps none here from now on."""
        self._covered = frozenset()
        for held in (self.entries, self.ahead, self.refused, self.traced):
            held.clear()
        if self.opened is not None:
            self.opened.discard(self)
        while self.programs:
            self.programs.pop().close()

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, chain: object) -> bool:
        return chain in self.entries

    def __repr__(self) -> str:
        held = ", ".join(f"{chain.tensor_name!r}" for chain in tuple(self.entries))
        return f"<Scope hits={self.hits} misses={self.misses} holds=[{held}]>"


_SCOPES: ContextVar[tuple[Scope, ...]] = ContextVar(
    "paramdesc.scopes", default=()
)  # outermost first


active_scopes = _SCOPES.get


class OpenScopes:
    """Whether eager code has a scope open that it opened in this thread.

    Other tasks of the thread see it too: it tells compiled code where to look, and not what
    it finds. Only `any` is read there, so that one scope more compiles nothing anew.
    """

    def __init__(self) -> None:
        self.any = False
        self.scopes: set[Scope] = set()

    def add(self, scope: Scope) -> None:
        self.scopes.add(scope)
        self.any = True

    def discard(self, scope: Scope) -> None:
        self.scopes.discard(scope)
        self.any = bool(self.scopes)


class TracedScopes(threading.local):
    """What compiled code knows of scopes: torch.compile cannot follow a context variable.

    `scopes` are those that it has opened itself. They open and end within one call of that
    code, so no other task comes between.
    """

    def __init__(self) -> None:
        self.scopes: tuple[Scope, ...] = ()
        self.opened = OpenScopes()


TRACED = TracedScopes()


def open_scope(scope: Scope) -> None:
    """Make `scope` the innermost one of the calling thread or task."""
    if is_dynamo_compiling():
        TRACED.scopes = (*TRACED.scopes, scope)
        return
    count_uncounted_steps()
    _SCOPES.set((*active_scopes(), scope))
    scope.opened = TRACED.opened
    scope.opened.add(scope)


def close_innermost(scopes: list[Scope]) -> None:
    """End the innermost active one of `scopes`, and take it out of the list.

    Threads may have opened several; if none is active here, as in a generator that another
    context closes, the last one ends.
    """
    if is_dynamo_compiling():
        scope = scopes[-1]
    else:
        active = active_scopes()
        scope = next((scope for scope in reversed(active) if scope in scopes), scopes[-1])
        _SCOPES.set(tuple(other for other in active if other is not scope))
    TRACED.scopes = tuple(other for other in TRACED.scopes if other is not scope)
    scopes.remove(scope)
    scope.close()


def forget(chain: Any) -> None:
    """Drop what the active scopes hold of `chain`."""
    for scope in active_scopes():
        scope.entries.pop(chain, None)
        scope.refused.discard(chain)


def find_scope(chain: Any) -> Scope | None:
    """The active scope that values of `chain` belong to."""
    return next((scope for scope in active_scopes() if scope.covers(chain)), None)


class RerunScope(Scope):
    """The one scope of the second run of a checkpointed region: it answers as the first run's."""

    __slots__ = ("rerun",)

    def __init__(self, rerun: Rerun) -> None:
        super().__init__(frozenset())
        self.rerun = rerun


@contextmanager
def rerun(run: Rerun) -> Iterator[None]:
    """No scope is open inside, and every read is answered by `run`."""
    token = _SCOPES.set((RerunScope(run),))
    try:
        yield
    finally:
        _SCOPES.reset(token)
