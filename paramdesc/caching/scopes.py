"""A scope: the chains that it covers, their kept values, and its statistics."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from html import escape
from types import FrameType
from typing import Any
from weakref import WeakSet

from paramdesc.caching.deferral import Deferral
from paramdesc.caching.entry import Entry
from paramdesc.caching.meeting import Meeting
from paramdesc.caching.programs import OpenProgram
from paramdesc.caching.record import Cause, Reason, Record
from paramdesc.caching.report import CacheReport, CacheRow
from paramdesc.caching.slots import AUTO_CACHED, IN_SLOTS, AutoCached
from paramdesc.caching.traced_scopes import OpenScopes
from paramdesc.errors import DeferredGradientError

__all__ = ["AUTO", "Scope"]


class Scope:
    """An active `with cached(...)` block: what it covers, what it keeps, and its statistics.

    `hits` counts the reads that returned a cached value, and `misses` the evaluations. With
    `batched`, the first read evaluates similar tensors as well: each counts as a miss, and its own
    first read is a hit. So one read of each of six similar tensors counts 6 misses and 5 hits. A
    persistent scope counts over all of its blocks. If threads share a scope, some counts may be
    lost, but never values. `report()` gives details.
    """

    is_call = False
    """Whether the scope ends with the call that `frame` runs, and not with a block."""
    disables = False
    """Whether the scope switches chains off, instead of keeping their values."""

    __slots__ = (
        "_covered",
        "ahead",
        "batched",
        "check_contents",
        "deferral",
        "entries",
        "frame",
        "groups",
        "is_closed",
        "lasting",
        "lasts",
        "meeting",
        "opened",
        "owns_records",
        "parts",
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
        batched: bool = False,
        meeting: Meeting | None = None,
    ) -> None:
        """Open it by `with cached(...) as scope`.

        Args:
            covered: the chains, with names for the report; None covers all.
            lasts: whether this scope keeps only values that outlive their block.
            lasting: the scope with `lasts` that belongs to this one.
            deferral: collects the gradients of the values, if they are deferred.
            entries: where values are kept, if not in the scope itself.
            records: where the statistics are kept, if not in the scope itself.
            check_contents: whether values that outlive their block are compared with their tensors;
                None compares tensors on a CPU.
            batched: whether chains that are alike are evaluated together.
            meeting: the processes between which these evaluations are divided.
        """
        self._covered = covered
        self.lasts = lasts
        self.lasting = lasting
        self.deferral = deferral
        self.entries: Any = {} if entries is None else entries
        self.records: Any = {} if records is None else records
        self.owns_records = records is None
        self.check_contents = check_contents
        self.ahead: Any = ()  # chains evaluated for a later read in compiled code
        self.refused: Any = ()  # chains whose values compiled code cannot use
        self.batched = batched
        self.meeting = meeting
        self.groups: Any = None  # the covered chains, by what they look like
        self.parts: dict[Any, Any] = {}  # for each chain, those that are alike
        self.traced: dict[Any, Any] = {}
        self.opened: OpenScopes | None = None
        self.programs: list[OpenProgram] = []
        self.is_closed = False
        self.frame: FrameType | None = None  # the frame that opened it,
        self.place = 0  # and the instruction there

    @property
    def covered(self) -> Any:
        """The covered chains; None for all."""
        return self._covered

    def covers(self, chain: Any) -> bool:
        """Whether values of `chain` may be kept here."""
        return not self.is_closed and (self._covered is None or chain in self._covered)

    def chains(self) -> list[Any]:
        """The chains of the report: the covered ones, or without targets those that were read."""
        return list(self._covered if isinstance(self._covered, Mapping) else self.records)

    def listed(self) -> Iterable[Any]:
        """The covered chains, as far as they are listed."""
        return self._covered if isinstance(self._covered, Mapping) else ()

    def view(self) -> Scope:
        """Another scope with the same targets and values, for one more block."""
        return Scope(
            self._covered,
            lasts=True,
            entries=self.entries,
            records=self.records,
            check_contents=self.check_contents,
            batched=self.batched,
        )

    def check_contents_of(self, chain: Any) -> bool | None:
        """The setting of `check_contents` for `chain`."""
        return chain.__dict__[AUTO_CACHED].check_contents if self is AUTO else self.check_contents

    def record_of(self, chain: Any) -> Record:
        """The statistics of `chain`."""
        record: Record | None = self.records.get(chain)
        if record is None:
            name = self.name_of(chain) or f"{chain.host}.{chain.tensor_name}"
            record = self.records.setdefault(chain, Record(name))
        return record

    def name_of(self, chain: Any) -> str:
        """The path of `chain` in the targets; empty if it is not known."""
        return self._covered.get(chain, "") if isinstance(self._covered, Mapping) else ""

    def drop(self, chain: Any, reason: Reason = Reason.FORGOTTEN) -> None:
        """Drop the value of `chain`."""
        entry = self.entries.pop(chain, None)
        if entry is not None:
            entry.record.drop(Cause(reason))
        self.refused = [other for other in self.refused if other is not chain]

    def refuse(self, chain: Any) -> None:
        """Note that compiled code cannot use a value of `chain`."""
        self.refused = [*self.refused, chain]

    def announce(self, chain: Any) -> None:
        """Note that a value of `chain` was evaluated for a later read in compiled code."""
        if not self.ahead:
            self.ahead = WeakSet()  # the read may not come
        self.ahead.add(chain)

    def backward(self, retain_graph: bool = False) -> None:
        """Run the backward pass of the maps, for all gradients that are deferred in this scope.

        The results are added to the `.grad` of the originals; if a map raises, none of them is
        changed. Each value is then evaluated again when it is next read, and a gradient that
        reaches an old value raises an error. With `retain_graph=True`, the values stay valid for
        more backward passes. Values that belong to an outer scope are left to that scope.

        Raises:
            RuntimeError: if the scope was not opened with `deferred=True`.
        """
        if self.deferral is None:
            raise DeferredGradientError.not_deferred()
        self.deferral.backward(retain_graph)

    @property
    def hits(self) -> int:
        """The number of reads that returned a cached value."""
        return sum(record.hits for record in self.known())

    @property
    def misses(self) -> int:
        """The number of evaluations. A batch counts as one for each of its tensors."""
        return sum(record.misses for record in self.known())

    def known(self) -> list[Record]:
        """The records of `chains()`."""
        found = (self.records.get(chain) for chain in self.chains())
        return [record for record in found if record is not None]

    def held(self) -> dict[Any, Entry]:
        """The kept values by chain, including those that outlive the block."""
        own = {} if self.is_closed and not self.lasts else self.entries
        found = {chain: entry for chain in self.chains() for entry in [own.get(chain)] if entry}
        return found if self.lasting is None else {**self.lasting.held(), **found}

    def report(self) -> CacheReport:
        """The cached values and their age, why values were dropped, and how long the maps took."""
        held = {entry.record: entry for entry in self.held().values()}
        return CacheReport([CacheRow.of(record, held.get(record)) for record in self.known()])

    def close(self) -> None:
        """Free the values. A task that is still running inside keeps no more values here."""
        self.is_closed = True
        self.frame = None
        if not self.lasts:
            self.entries.clear()
        if self.owns_records:  # keep the counts, but no reference to a chain
            self.records = dict(enumerate(self.records.values()))
            self._covered = None
        self.ahead = self.refused = ()
        self.groups = None
        self.parts = {}
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

    def _repr_html_(self) -> str:
        title = escape(repr(self))
        return f"<div>{title}</div>{self.report()._repr_html_()}"

    def __repr__(self) -> str:
        held = ", ".join(repr(self.name_of(chain) or chain.tensor_name) for chain in self.held())
        return f"<Scope hits={self.hits} misses={self.misses} holds=[{held}]>"


AUTO = Scope(AutoCached(), lasts=True, **IN_SLOTS)
"""The scope around all others: keeps the values of chains with `auto_cache` between calls."""
