"""The scopes in which values are kept: the one door to the context variable.

A value belongs to the outermost active scope that covers its chain.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

from torch import Tensor

from paramdesc.cache.deferral import Deferral
from paramdesc.cache.early import refuse_early
from paramdesc.cache.entry import Entry
from paramdesc.cache.programs import OpenProgram
from paramdesc.cache.record import Cause, Reason, Record
from paramdesc.cache.report import CacheReport, CacheRow
from paramdesc.cache.slots import IN_SLOTS, AutoCached
from paramdesc.errors import DeferredGradientError, add_note
from paramdesc.torch_internals.checkpointing import Rerun
from paramdesc.torch_internals.dynamo import is_dynamo_compiling
from paramdesc.torch_internals.optimizers import count_uncounted_steps

__all__ = [
    "AUTO",
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
    a fresh one; those of a persistent scope, all that were made in it so far. Threads that
    share a scope may lose counts, never values. `report()` tells more.

    Args:
        covered: the chains, with names for the report; None covers all.
        lasts: whether it takes only values that outlive it.
        lasting: the scope that does so on behalf of this one.
        deferral: takes the gradients of the values here, if they are deferred.
        entries: where values are kept, if not in the scope itself.
        records: where is kept how it has served, if not in the scope itself.
    """

    __slots__ = (
        "_covered",
        "ahead",
        "deferral",
        "entries",
        "is_closed",
        "lasting",
        "lasts",
        "opened",
        "owns_records",
        "programs",
        "records",
        "refused",
        "traced",
    )

    def __init__(
        self,
        covered: Container[Any] | None,
        *,
        lasts: bool = False,
        lasting: Scope | None = None,
        deferral: Deferral | None = None,
        entries: Any = None,
        records: Any = None,
    ) -> None:
        self._covered = covered
        self.lasts = lasts
        self.lasting = lasting
        self.deferral = deferral
        self.entries: Any = {} if entries is None else entries
        self.records: Any = {} if records is None else records
        self.owns_records = records is None
        self.ahead: Any = ()  # chains evaluated for a read of compiled code to come
        self.refused: Any = ()  # chains whose values compiled code cannot be given
        self.traced: dict[Any, Any] = {}
        self.opened: OpenScopes | None = None
        self.programs: list[OpenProgram] = []
        self.is_closed = False

    @property
    def covered(self) -> Any:
        """The chains that it was made for; None for all."""
        return self._covered

    def covers(self, chain: Any) -> bool:
        """Whether values of `chain` may be kept here."""
        return not self.is_closed and (self._covered is None or chain in self._covered)

    def chains(self) -> list[Any]:
        """What it tells of: all that it was made for, or has met."""
        return list(self._covered if isinstance(self._covered, dict) else self.records)

    def view(self) -> Scope:
        """For one more opening: another scope that covers and holds the same."""
        return Scope(self._covered, lasts=True, entries=self.entries, records=self.records)

    def record_of(self, chain: Any) -> Record:
        """What is remembered of `chain`."""
        record: Record | None = self.records.get(chain)
        if record is None:
            named = self._covered.get(chain) if isinstance(self._covered, dict) else None
            name = named or f"{chain.host}.{chain.tensor_name}"
            record = self.records.setdefault(chain, Record(name))
        return record

    def drop(self, chain: Any) -> None:
        """Hold no value of `chain` any more, whatever it depends on."""
        entry = self.entries.pop(chain, None)
        if entry is not None:
            entry.record.drop(Cause(Reason.FORGOTTEN))
        self.refused = [other for other in self.refused if other is not chain]

    def refuse(self, chain: Any) -> None:
        """Give compiled code no value of `chain`."""
        self.refused = [*self.refused, chain]

    def announce(self, chain: Any) -> None:
        """A value of `chain` is there for a read of compiled code to come."""
        if not self.ahead:
            self.ahead = WeakSet()  # the read may not come
        self.ahead.add(chain)

    def backward(self, retain_graph: bool = False) -> None:
        """Run the backward pass of the maps, for all gradients that wait in this scope.

        They are added to `.grad` of the originals, all of them or, if a map raises, none.
        After it each value is evaluated anew when it is read next; a gradient that reaches an
        earlier one raises. With `retain_graph=True` they stay, for further backward passes.
        Values that belong to an outer scope are left to that.

        Raises:
            RuntimeError: if the scope was not opened with `deferred=True`.
        """
        if self.deferral is None:
            raise DeferredGradientError.not_deferred()
        self.deferral.backward(retain_graph)

    @property
    def hits(self) -> int:
        """How many reads a kept value answered."""
        return sum(record.hits for record in self.known())

    @property
    def misses(self) -> int:
        """How many reads were evaluated."""
        return sum(record.misses for record in self.known())

    def known(self) -> list[Record]:
        """How it has served each of them."""
        found = (self.records.get(chain) for chain in self.chains())
        return [record for record in found if record is not None]

    def held(self) -> dict[Any, Entry]:
        """What it holds at the moment, by chain; also what outlives it."""
        own = {} if self.is_closed and not self.lasts else self.entries
        found = {chain: entry for chain in self.chains() for entry in [own.get(chain)] if entry}
        return found if self.lasting is None else {**self.lasting.held(), **found}

    def report(self) -> CacheReport:
        """What is kept, since when, why values were thrown away, and what all took."""
        held = {entry.record: entry for entry in self.held().values()}
        return CacheReport([CacheRow.of(record, held.get(record)) for record in self.known()])

    def close(self) -> None:
        """Free the values. A task that still runs inside keeps none here from now on."""
        self.is_closed = True
        if not self.lasts:
            self.entries.clear()
        if self.owns_records:  # the counts stay, and hold no chain
            self.records = dict(enumerate(self.records.values()))
            self._covered = None
        self.ahead = self.refused = ()
        self.traced.clear()
        if self.opened is not None:
            self.opened.discard(self)
        while self.programs:
            self.programs.pop().close()

    def __len__(self) -> int:
        return len(self.held())

    def __contains__(self, chain: object) -> bool:
        return chain in self.held()

    def __repr__(self) -> str:
        held = ", ".join(f"{chain.tensor_name!r}" for chain in self.held())
        return f"<Scope hits={self.hits} misses={self.misses} holds=[{held}]>"


_SCOPES: ContextVar[tuple[Scope, ...]] = ContextVar(
    "paramdesc.cache.scopes", default=()
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


AUTO = Scope(AutoCached(), lasts=True, **IN_SLOTS)
"""Around all other scopes, always: keeps what lasts of these chains."""


def open_scope(scope: Scope) -> None:
    """Make `scope` the innermost one of the calling thread or task."""
    if is_dynamo_compiling():
        TRACED.scopes = (*TRACED.scopes, scope)
        return
    count_uncounted_steps()
    if scope.deferral is not None:
        refuse_early(pending_in_open_scopes)
    opened = (scope,) if scope.lasting is None else (scope.lasting, scope)
    _SCOPES.set(active_scopes() + opened)
    scope.opened = TRACED.opened
    scope.opened.add(scope)


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


def close_innermost(scopes: list[Scope], error: BaseException | None = None) -> None:
    """End the innermost active one of `scopes`, and take it out of the list.

    Threads may have opened several; if none is active here, as in a generator that another
    context closes, the last one ends. What was deferred reaches the originals, or is dropped
    if an `error` ends the scope.
    """
    if is_dynamo_compiling():
        scope = scopes[-1]
    else:
        active = active_scopes()
        scope = active[-1] if active else scopes[-1]
        if scope not in scopes:
            scope = next((scope for scope in reversed(active) if scope in scopes), scopes[-1])
        leave_scope(scope)
    if TRACED.scopes:
        TRACED.scopes = tuple(other for other in TRACED.scopes if other is not scope)
    scopes.remove(scope)
    try:
        if scope.deferral is not None:
            settle(scope.deferral, error)
    finally:
        if scope.lasting is not None:
            scope.lasting.close()
        scope.close()


def settle(deferral: Deferral, error: BaseException | None) -> None:
    """Let the gradients that wait reach the originals; none of them after an error."""
    if error is None:
        deferral.backward()
        return
    names = deferral.drop()
    if names:
        listed = ", ".join(map(repr, names))
        add_note(error, f"the deferred gradients of {listed} were dropped: .grad is as before")


def pending_in_open_scopes(parameters: Iterable[Tensor]) -> list[str]:
    """The tensors whose gradients are deferred in an open scope and lead to `parameters`."""
    deferrals = [scope.deferral for scope in active_scopes() if scope.deferral is not None]
    return [name for deferral in deferrals for name in deferral.pending(parameters)]


def forget(chain: Any) -> None:
    """Drop what the active scopes hold of `chain`, and what lasts without one."""
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
    token = _SCOPES.set((RerunScope(run),))
    try:
        yield
    finally:
        _SCOPES.reset(token)
