"""The scopes in which values are kept: the one door to the context variable.

`read` answers every access to a parametrized tensor. A value belongs to the outermost
active scope that covers its chain, and is used again only while its entry is current.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Set
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from paramdesc.entry import Entry, watch_originals
from paramdesc.fused import count_uncounted_steps
from paramdesc.mode import current_mode

__all__ = [
    "Scope",
    "close_innermost",
    "forget",
    "open_scope",
    "read",
]


class Scope:
    """One active `with cached(...)`: what it covers, what it holds and how it has served.

    `hits` and `misses` count the reads that this scope answered with a kept value and with
    a fresh one. Threads that share a scope may lose counts, never values.
    """

    __slots__ = ("_covered", "entries", "hits", "misses", "traced")

    def __init__(self, covered: Set[Any] | None) -> None:
        self._covered = covered
        self.entries: dict[Any, Entry] = {}
        self.traced: dict[Any, Any] = {}
        self.hits = 0
        self.misses = 0

    def covers(self, chain: Any) -> bool:
        """Whether values of `chain` may be kept here."""
        return self._covered is None or chain in self._covered

    def close(self) -> None:
        """Free the values. A task that still runs inside keeps none here from now on."""
        self._covered = frozenset()
        self.entries.clear()
        self.traced.clear()

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


class TracedScopes(threading.local):
    """The scopes that compiled code has opened: torch.compile cannot follow a context variable.

    They open and end within one call of that code, so no other task comes between.
    """

    def __init__(self) -> None:
        self.scopes: tuple[Scope, ...] = ()


_TRACED = TracedScopes()


def open_scope(scope: Scope) -> None:
    """Make `scope` the innermost one of the calling thread or task."""
    if is_dynamo_compiling():
        _TRACED.scopes = (*_TRACED.scopes, scope)
        return
    count_uncounted_steps()
    _SCOPES.set((*active_scopes(), scope))


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
    _TRACED.scopes = tuple(other for other in _TRACED.scopes if other is not scope)
    scopes.remove(scope)
    scope.close()


def forget(chain: Any) -> None:
    """Drop what the active scopes hold of `chain`."""
    for scope in active_scopes():
        scope.entries.pop(chain, None)


def read(chain: Any, evaluate: Callable[[Any], Any]) -> Any:
    """The value of `chain`: a kept one in a scope that has a current one, else a fresh one."""
    if is_dynamo_compiling():
        return read_traced(chain, evaluate)
    scopes = active_scopes()
    if not scopes:
        return evaluate(chain)
    for scope in scopes:
        entry = scope.entries.get(chain)
        if entry is not None:
            if entry.is_current():
                scope.hits += 1
                return entry.value
            entry = None  # the old value must be gone before the new one is made
            break
    for scope in scopes:
        if scope.covers(chain):
            return evaluate_into(scope, chain, evaluate)
    return evaluate(chain)


def evaluate_into(scope: Scope, chain: Any, evaluate: Callable[[Any], Any]) -> Any:
    """A fresh value of `chain`, kept in `scope` if it can be told from others."""
    scope.misses += 1
    scope.entries.pop(chain, None)
    mode, originals = current_mode(), watch_originals(chain)
    value = evaluate(chain)
    if isinstance(value, Tensor):  # an unsafe map may return anything
        entry = Entry(chain, value, mode, originals)
        if entry.may_be_kept():
            scope.entries[chain] = entry
    return value


def read_traced(chain: Any, evaluate: Callable[[Any], Any]) -> Any:
    """`read` in compiled code: one evaluation in the graph for each scope opened there.

    To the tracer, two addresses are equal if nothing wrote to the tensor in between. Where
    something did, it cannot tell, and hands the rest to eager code.
    """
    for scope in _TRACED.scopes:
        if scope.covers(chain):
            kept = scope.traced.get(chain)
            if kept is None or kept[0] != torch.is_grad_enabled() or are_moved(kept[1], chain):
                value = evaluate(chain)
                kept = scope.traced[chain] = (torch.is_grad_enabled(), addresses(chain), value)
            return kept[2]
    return evaluate(chain)


def addresses(chain: Any) -> list[int]:
    return [tensor.data_ptr() for tensor in (*chain.parameters(), *chain.buffers())]


def are_moved(before: list[int], chain: Any) -> bool:
    now = addresses(chain)
    return len(before) != len(now) or any(b != n for b, n in zip(before, now, strict=True))
