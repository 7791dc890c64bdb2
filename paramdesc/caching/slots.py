"""Where `auto_cache` keeps the value of a chain: in a slot of the chain itself.

To a scope, the slots of all chains look like one dict of entries and one of records. They keep no
module alive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from paramdesc.caching.entry import Entry
from paramdesc.caching.record import Record

__all__ = ["AUTO_CACHED", "IN_SLOTS", "AutoCached", "InSlots", "Slot"]

AUTO_CACHED = "_auto_cached"
"""The attribute of a chain that holds its `Slot`, after a call of `auto_cache`."""


class Slot:
    """The kept value and the record of one chain. A copy of a slot is empty."""

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
    """The set of the chains that have a slot."""

    def __contains__(self, chain: object) -> bool:
        return AUTO_CACHED in chain.__dict__


class InSlots:
    """The entries, or the records, of all chains with a slot, with the interface of a dict."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def get(self, chain: Any, default: Any = None) -> Any:
        slot = chain.__dict__.get(AUTO_CACHED)
        return default if slot is None else getattr(slot, self.kind)

    def __setitem__(self, chain: Any, value: Any) -> None:
        slot = chain.__dict__.get(AUTO_CACHED)
        if slot is not None:  # None if `auto_cache` was switched off meanwhile
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
        return iter(())  # there is no list of all chains


IN_SLOTS: dict[str, Any] = {"entries": InSlots("entry"), "records": InSlots("record")}
