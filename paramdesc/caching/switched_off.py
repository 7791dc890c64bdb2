"""What is read instead of the value of a disabled chain.

A block of `disabled` is a scope like any other, and is searched before all others. It holds an
entry for each disabled chain, and this entry is always current. So reads outside such blocks cost
nothing more, and no other scope sees the reads inside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from paramdesc.caching.bound import Bound
from paramdesc.caching.last_read import remembered
from paramdesc.caching.record import Reason, Record
from paramdesc.caching.scopes import Scope
from paramdesc.chain.evaluation import evaluate
from paramdesc.torch_internals.checkpointing import saving_hooks

__all__ = [
    "FRESH",
    "GIVEN",
    "ORIGINAL",
    "DisablingScope",
    "StandIn",
    "disabling_scopes",
    "find_stand_in",
]

ORIGINAL, GIVEN, FRESH = "original", "given", "fresh"
"""How a chain is read: as its original, as a given tensor, or evaluated and not kept. Another word
lists the places of the maps that are applied, as in "0,2"."""

_READS = Record("reads in blocks of disabled()")  # an entry has a record


class StandIn:
    """An entry that is always current, for a chain that is switched off."""

    __slots__ = ("chain", "given", "how")

    record = _READS
    watches = ()

    def __init__(self, chain: Any, how: str = ORIGINAL, given: Tensor | None = None) -> None:
        self.chain = chain
        self.how = how
        self.given = given

    def why_stale(self, ignoring_mode: bool = False) -> None:
        """None: it is current."""

    @property
    def value(self) -> Any:
        """What is read."""
        if self.how == GIVEN:
            return self.given
        if self.how == ORIGINAL:
            return self.chain.original
        if self.how == FRESH:
            return remembered(self.chain, evaluate(self.chain))
        values: tuple[Any, ...] = self.chain.originals()
        for place, parametrization in enumerate(self.chain.maps()):
            if str(place) in self.how.split(","):
                values = (parametrization(*values),)
        return values[0]


class StandIns(dict[Any, StandIn]):
    """The stand-ins by chain. One that this block does not name is read as in `around`, the block
    that this one is in.

    A chain that is not disabled, but whose maps may read a disabled one, is evaluated at each read:
    its cached value was computed with other values.
    """

    def __init__(self, chosen: Mapping[Any, StandIn], around: DisablingScope | None = None) -> None:
        super().__init__(chosen)
        self.around = around
        self.originals = {id(x) for chain in chosen for x in chain.own_originals().values()}
        self.others: dict[Any, StandIn | None] = {}

    def get(self, chain: Any, default: Any = None) -> Any:
        found = super().get(chain)
        if found is None and self.around is not None:
            found = self.around.entries.get(chain)
        if found is None and self:
            if chain not in self.others:
                fresh = StandIn(chain, FRESH) if self.may_reach(chain) else None
                self.others[chain] = fresh
            found = self.others[chain]
        return found

    def may_reach(self, chain: Any) -> bool:
        """Whether the maps of `chain` may read a tensor that is switched off."""
        bound = Bound.of(chain)
        return (
            bound.is_foreign
            or not bound.is_known
            or any(id(place.value) in self.originals for place in bound.tensors())
        )


class DisablingScope(Scope):
    """An open block of `disabled`. It covers nothing, so no value is kept in it."""

    __slots__ = ("hooks",)
    disables = True

    def __init__(
        self, stand_ins: Mapping[Any, StandIn], around: DisablingScope | None = None
    ) -> None:
        super().__init__(frozenset(), entries=StandIns(stand_ins, around))
        self.hooks = saving_hooks(True)

    def drop(self, chain: Any, reason: Reason = Reason.FORGOTTEN) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """A checkpointed region of the block may be recomputed later: the stand-ins stay."""
        entries, self.entries = self.entries, {}
        super().close()
        self.entries = entries

    def is_around(self, hooks: Any) -> bool:
        """Whether the block was opened outside of the region that has set `hooks`."""
        own: Any = self.hooks
        return own is None or own[0] is not hooks[0]

    def __repr__(self) -> str:
        names = ", ".join(f"{chain.tensor_name!r}" for chain in self.entries)
        return f"<disabled {names}>"


def disabling_scopes(scopes: tuple[Scope, ...]) -> tuple[DisablingScope, ...]:
    """The blocks of `disabled` among the open scopes, innermost first."""
    return tuple(scope for scope in scopes if isinstance(scope, DisablingScope))


def find_stand_in(scopes: tuple[Scope, ...], chain: Any) -> StandIn | None:
    """The stand-in for `chain`, from the innermost block that has one."""
    for scope in scopes:
        if not isinstance(scope, DisablingScope):
            return None  # blocks of `disabled` come first
        found: StandIn | None = scope.entries.get(chain)
        if found is not None:
            return found
    return None
