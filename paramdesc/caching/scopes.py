"""A scope: which chains it covers, what it holds of them, and how it has served."""

from __future__ import annotations

from collections.abc import Container
from types import FrameType
from typing import Any
from weakref import WeakSet

from paramdesc.caching.deferral import Deferral
from paramdesc.caching.entry import Entry
from paramdesc.caching.programs import OpenProgram
from paramdesc.caching.record import Cause, Reason, Record
from paramdesc.caching.report import CacheReport, CacheRow
from paramdesc.caching.slots import AUTO_CACHED, IN_SLOTS, AutoCached
from paramdesc.caching.traced_scopes import OpenScopes
from paramdesc.errors import DeferredGradientError

__all__ = ["AUTO", "Scope"]


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
        check_contents: whether what lasts is compared with its tensors again; None for tensors
            on a CPU.
    """

    is_call = False
    """Whether it ends with the call that `frame` runs, and not with a block."""

    __slots__ = (
        "_covered",
        "ahead",
        "check_contents",
        "deferral",
        "entries",
        "frame",
        "is_closed",
        "lasting",
        "lasts",
        "opened",
        "owns_records",
        "place",
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
        check_contents: bool | None = None,
    ) -> None:
        self._covered = covered
        self.lasts = lasts
        self.lasting = lasting
        self.deferral = deferral
        self.entries: Any = {} if entries is None else entries
        self.records: Any = {} if records is None else records
        self.owns_records = records is None
        self.check_contents = check_contents
        self.ahead: Any = ()  # chains evaluated for a read of compiled code to come
        self.refused: Any = ()  # chains whose values compiled code cannot be given
        self.traced: dict[Any, Any] = {}
        self.opened: OpenScopes | None = None
        self.programs: list[OpenProgram] = []
        self.is_closed = False
        self.frame: FrameType | None = None  # which has opened it,
        self.place = 0  # at this instruction of its code

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
        return Scope(
            self._covered,
            lasts=True,
            entries=self.entries,
            records=self.records,
            check_contents=self.check_contents,
        )

    def check_contents_of(self, chain: Any) -> bool | None:
        """Whether what lasts of `chain` is compared with its tensors again."""
        return chain.__dict__[AUTO_CACHED].check_contents if self is AUTO else self.check_contents

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
        self.frame = None
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
            self.programs[-1].close()
            self.programs.pop()

    def __len__(self) -> int:
        return len(self.held())

    def __contains__(self, chain: object) -> bool:
        return chain in self.held()

    def __repr__(self) -> str:
        held = ", ".join(f"{chain.tensor_name!r}" for chain in self.held())
        return f"<Scope hits={self.hits} misses={self.misses} holds=[{held}]>"


AUTO = Scope(AutoCached(), lasts=True, **IN_SLOTS)
"""Around all other scopes, always: keeps what lasts of these chains."""
