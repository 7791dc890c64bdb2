"""The scopes in which values are kept: the one door to the context variable.

A value belongs to the outermost active scope that covers its chain.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from paramdesc.checkpointing import Rerun
from paramdesc.deferral import Deferral
from paramdesc.dynamo import is_dynamo_compiling
from paramdesc.entry import Entry
from paramdesc.errors import DeferredGradientError, add_note
from paramdesc.fused import count_uncounted_steps
from paramdesc.record import Cause, Reason, Record
from paramdesc.report import CacheReport, CacheRow
from paramdesc.scripted import OpenProgram

__all__ = [
    "AUTO",
    "AUTO_CACHED",
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
        lasts: whether it takes only values that outlive it, in `entries`.
        lasting: the scope that does so on behalf of this one.
        deferral: takes the gradients of the values here, if they are deferred.
        entries: where values are kept; it is emptied at the end if it is the scope's own.
        records: where counts are kept, shared like `entries`.
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
    ) -> None:
        self._covered = covered
        self.lasts = lasts
        self.lasting = lasting
        self.deferral = deferral
        self.entries: Any = {} if not lasts else WeakKeyDictionary()
        self.records: Any = {} if not lasts else WeakKeyDictionary()
        if lasting is not None:
            self.records = lasting.records
        self.ahead: set[Any] = set()  # chains evaluated for a read of compiled code to come
        self.refused: set[Any] = set()  # chains whose values compiled code cannot be given
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

    def knows(self, chain: Any) -> bool:
        """Whether it tells of `chain`, of all whose values are where it keeps its own."""
        return not isinstance(self._covered, Mapping) or chain in self._covered

    def view(self) -> Scope:
        """For one more opening: another scope that covers and holds the same."""
        twin = Scope(self._covered, lasts=True)
        twin.entries, twin.records = self.entries, self.records
        return twin

    def record_of(self, chain: Any) -> Record:
        """What is remembered of `chain`."""
        record: Record | None = self.records.get(chain)
        if record is None:
            named = isinstance(self._covered, Mapping) and self._covered.get(chain)
            name = named or f"{chain.host}.{chain.tensor_name}"
            record = self.records.setdefault(chain, Record(name))
        return record

    def drop(self, chain: Any) -> None:
        """Hold no value of `chain` any more, whatever it depends on."""
        entry = self.entries.pop(chain, None)
        if entry is not None:
            entry.record.drop(Cause(Reason.FORGOTTEN))
        self.refused.discard(chain)

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
        """The records of what it covers."""
        return [record for chain, record in list(self.records.items()) if self.knows(chain)]

    def held(self) -> dict[Any, Entry]:
        """What it holds at the moment, by chain; also what outlives it."""
        found = {chain: e for chain, e in list(self.entries.items()) if self.knows(chain)}
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
            if self.lasting is None:  # the counts stay, and hold no chain
                self.records = dict(enumerate(self.records.values()))
                self._covered = None
        for held in (self.ahead, self.refused, self.traced):
            held.clear()
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


AUTO_CACHED = "_auto_cached"
"""The attribute of the chains that `auto_cache` has been called on."""


class AutoCached:
    """The set of these chains."""

    def __contains__(self, chain: object) -> bool:
        return AUTO_CACHED in chain.__dict__


AUTO = Scope(AutoCached(), lasts=True)
"""Around all other scopes, always: keeps what lasts of these chains."""


def open_scope(scope: Scope) -> None:
    """Make `scope` the innermost one of the calling thread or task."""
    if is_dynamo_compiling():
        TRACED.scopes = (*TRACED.scopes, scope)
        return
    count_uncounted_steps()
    if scope.deferral is not None:
        refuse_early_steps()
    opened = (scope,) if scope.lasting is None else (scope.lasting, scope)
    _SCOPES.set(active_scopes() + opened)
    scope.opened = TRACED.opened
    scope.opened.add(scope)


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
        scope = next((scope for scope in reversed(active) if scope in scopes), scopes[-1])
        ended = (scope, scope.lasting)
        _SCOPES.set(tuple(other for other in active if other not in ended))
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


_refusing = False


def refuse_early_steps() -> None:
    """From now on, no optimizer steps while gradients of its parameters are deferred."""
    global _refusing
    if not _refusing:
        _refusing = True
        register_optimizer_step_pre_hook(refuse_early_step)


def refuse_early_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if is_dynamo_compiling():
        return
    for scope in active_scopes():
        if scope.deferral is not None and scope.deferral.pending():
            stepped = (x for group in optimizer.param_groups for x in group["params"])
            names = scope.deferral.pending(stepped)
            if names:
                raise DeferredGradientError.early_step(names)


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
