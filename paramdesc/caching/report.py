"""The report of a scope: an object that prints as a table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import overload

from paramdesc.caching.entry import Entry
from paramdesc.caching.record import Cause, Record
from paramdesc.chain.table import html_table, text_table

__all__ = ["CacheReport", "CacheRow"]


# no `from __future__ import annotations`: annotations that are strings would be looked up in the
# module that pickles name
@dataclass(frozen=True)
class CacheRow:
    """How one parametrized tensor was served by one scope.

    Attributes:
        name: Its path in the target, such as `encoder.0.weight`. Without targets, its name after
            the class of the module, `Linear.weight`.
        hits: The number of reads that returned a cached value.
        misses: The number of evaluations. In a batched scope, this includes evaluations together
            with another tensor that was read; the first read of this tensor is then a hit.
        seconds: The total time of each map; on a GPU, the time to launch the work.
        value: Shape, dtype and device of the cached value; empty if there is none.
        bytes: The size of the cached value.
        since: When the cached value was evaluated.
        dropped: Why the last value was dropped, as found by a later read.
        dropped_at: The time of that read.
        together: The number of values that the last evaluation gave, including this one.
    """

    name: str
    hits: int
    misses: int
    seconds: dict[str, float] = field(default_factory=dict)
    value: str = ""
    bytes: int = 0
    since: datetime | None = None
    dropped: Cause | None = None
    dropped_at: datetime | None = None
    together: int = 1

    @classmethod
    def of(cls, record: Record, entry: Entry | None) -> "CacheRow":
        """The row of a chain, from its record and its kept value."""
        value = None if entry is None else entry.value
        return cls(
            name=record.name,
            hits=record.hits,
            misses=record.misses,
            seconds=dict(record.seconds),
            value="" if value is None else f"{tuple(value.shape)} {value.dtype} {value.device}",
            bytes=0 if value is None else value.nbytes,
            since=None if entry is None else datetime.fromtimestamp(entry.since),
            dropped=record.dropped,
            dropped_at=at(record.dropped_at),
            together=record.together,
        )


def at(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds)


class CacheReport(Sequence[CacheRow]):
    """The rows of one scope, in the order of its targets, printed as a table."""

    def __init__(self, rows: Sequence[CacheRow]) -> None:
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, key: int | str) -> CacheRow: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[CacheRow]: ...
    def __getitem__(self, key: int | str | slice) -> CacheRow | Sequence[CacheRow]:
        """A row by index or by name."""
        if not isinstance(key, str):
            return self._rows[key]
        for row in self._rows:
            if row.name == key:
                return row
        raise KeyError(f"{key!r}. Rows: {', '.join(repr(row.name) for row in self._rows)}")

    def _ipython_key_completions_(self) -> list[str]:
        return [row.name for row in self._rows]

    def __iter__(self) -> Iterator[CacheRow]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __str__(self) -> str:
        return text_table(*self._table())

    def _repr_html_(self) -> str:
        return html_table(*self._table())

    def _table(self) -> tuple[list[str], list[list[str]]]:
        columns = [column for column in COLUMNS if column != TOGETHER or self._has_batches()]
        rows = [[cell(row) for _, cell in columns] for row in self._rows]
        return [title for title, _ in columns], rows

    def _has_batches(self) -> bool:
        return any(row.together > 1 for row in self._rows)

    def __repr__(self) -> str:
        return f"<CacheReport on {len(self)} tensor{'s' * (len(self) != 1)}>"


def shown_times(row: CacheRow) -> str:
    """The times of the maps, in order, without their indices."""
    times = [f"{name.partition(' ')[2]} {show(seconds)}" for name, seconds in row.seconds.items()]
    return ", ".join(times) or "-"


def show(seconds: float) -> str:
    """A time in a suitable unit."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


Column = tuple[str, Callable[[CacheRow], str]]

TOGETHER: Column = ("together", lambda row: str(row.together))
COLUMNS: tuple[Column, ...] = (
    ("tensor", lambda row: row.name),
    ("kept", lambda row: row.value.replace("torch.", "") or "-"),
    ("since", lambda row: "-" if row.since is None else f"{row.since:%H:%M:%S}"),
    ("hits", lambda row: str(row.hits)),
    ("misses", lambda row: str(row.misses)),
    TOGETHER,
    ("time in its parametrizations", shown_times),
    ("last dropped", lambda row: "-" if row.dropped is None else str(row.dropped)),
)
