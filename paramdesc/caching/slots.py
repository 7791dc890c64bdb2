"""What lasts of a chain without any scope that is written, held by the chain itself.

`auto_cache` puts a slot into each chain. To a scope, the slots of all chains look like one
dict of entries and one of records, and no module is kept alive by them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from paramdesc.caching.entry import Entry
from paramdesc.caching.record import Record

__all__ = ["AUTO_CACHED", "IN_SLOTS", "AutoCached", "InSlots", "Slot"]

AUTO_CACHED = "_auto_cached"
"""The attribute of the chains that `auto_cache` has been called on: a `Slot`."""


class Slot:
    """What lasts of one chain, held by the chain itself. A copy of it is empty."""

    __slots__ = ("check_contents", "entry", "record")

    def __init__(self, check_contents: bool | None = None) -> None:
        self.check_contents = check_contents
        self.entry: Entry | None = None
        self.record: Record | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Slot:
        return Slot(self.check_contents)

    def __reduce__(self) -> tuple[type[Slot], tuple[bool | None]]:
        return Slot, (self.check_contents,)


class AutoCached:
    """The set of these chains."""

    def __contains__(self, chain: object) -> bool:
        return AUTO_CACHED in chain.__dict__


class InSlots:
    """Entries, or records, of these chains: as a dict has them, and each in its chain."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def get(self, chain: Any, default: Any = None) -> Any:
        slot = chain.__dict__.get(AUTO_CACHED)
        return default if slot is None else getattr(slot, self.kind)

    def __setitem__(self, chain: Any, value: Any) -> None:
        slot = chain.__dict__.get(AUTO_CACHED)
        if slot is not None:  # it was switched off meanwhile
            setattr(slot, self.kind, value)

    def setdefault(self, chain: Any, value: Any) -> Any:
        found = self.get(chain)
        if found is None:
            self[chain] = found = value
        return found

    def pop(self, chain: Any, default: Any = None) -> Any:
        found = self.get(chain)
        if found is not None:
            self[chain] = None
        return found

    def __iter__(self) -> Iterator[Any]:
        return iter(())  # nobody knows all of the chains


IN_SLOTS: dict[str, Any] = {"entries": InSlots("entry"), "records": InSlots("record")}
