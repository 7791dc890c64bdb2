"""The scopes in which values are kept: the one door to the context variable.

`read` answers every access to a parametrized tensor. A value belongs to the outermost
active scope that covers its chain, and is used again only while its entry is current.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.checkpointing import Rerun, is_rerun, region_of, saving_hooks
from paramdesc.dynamo import fetch_kept, is_dynamo_compiling
from paramdesc.entry import Entry, watch_originals
from paramdesc.evaluation import CALL, is_symbolic
from paramdesc.fused import count_uncounted_steps
from paramdesc.mode import current_mode, is_inference, is_plain
from paramdesc.scripted import OpenProgram

__all__ = [
    "Scope",
    "close_innermost",
    "fetch",
    "forget",
    "keep",
    "open_scope",
    "read",
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


_TRACED = TracedScopes()


def open_scope(scope: Scope) -> None:
    """Make `scope` the innermost one of the calling thread or task."""
    if is_dynamo_compiling():
        _TRACED.scopes = (*_TRACED.scopes, scope)
        return
    count_uncounted_steps()
    _SCOPES.set((*active_scopes(), scope))
    scope.opened = _TRACED.opened
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
    _TRACED.scopes = tuple(other for other in _TRACED.scopes if other is not scope)
    scopes.remove(scope)
    scope.close()


def forget(chain: Any) -> None:
    """Drop what the active scopes hold of `chain`."""
    for scope in active_scopes():
        scope.entries.pop(chain, None)
        scope.refused.discard(chain)


def read(chain: Any, evaluate: Callable[[Any], Any], is_watched: bool = False) -> Any:
    """The value of `chain`: a kept one in a scope that has a current one, else a fresh one.

    `is_watched` says that `read_in_region` is asking.
    """
    if is_dynamo_compiling():
        return read_traced(chain, evaluate)
    scopes = active_scopes()
    if not scopes or (Module.__call__ is not CALL and is_symbolic()):
        return evaluate(chain)
    if not is_watched and saving_hooks(True) is not None:
        return read_in_region(saving_hooks(True), scopes[0], chain, evaluate)
    for scope in scopes:
        entry = scope.entries.get(chain)
        if entry is not None:
            if entry.is_current():
                scope.hits += 1
                return entry.value
            entry = None  # the old value must be gone before the new one is made
            break
    owner = find_scope(chain)
    return evaluate(chain) if owner is None else evaluate_into(owner, chain, evaluate)


def read_in_region(hooks: Any, outermost: Scope, chain: Any, evaluate: Callable[[Any], Any]) -> Any:
    """`read` where these hooks for saved tensors are set, by a checkpointed region mostly."""
    if isinstance(outermost, RerunScope):
        # a region in a region is not remembered: nothing that it saves now is ever asked for
        return outermost.rerun.read(chain, evaluate) if is_rerun(hooks) else evaluate(chain)
    if is_rerun(hooks):
        return evaluate(chain)  # no scope was open the first time
    region = region_of(hooks, rerun)
    if region is None:
        return read(chain, evaluate, is_watched=True)
    evaluated: list[Any] = []

    def evaluate_watched(chain: Any) -> Any:
        evaluated.append(chain)
        return evaluate(chain)

    value = read(chain, evaluate_watched, is_watched=True)
    region.add(chain, value, is_fresh=bool(evaluated))
    return value


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


def keep(chain: Any, evaluate: Callable[[Any], Any]) -> Any:
    """What an active scope keeps of `chain`, evaluated now if need be, or None.

    The guards of compiled code ask this before each call. They must not raise: what a map
    raises, it raises again when the compiled code evaluates it.
    """
    if is_inference():  # torch.compile traces without it: there, no tensor is an inference tensor
        with torch.inference_mode(False), torch.no_grad():
            return keep(chain, evaluate)
    scope = find_scope(chain)
    if scope is None or chain in scope.refused or not is_plain() or saving_hooks(True):
        return None
    entry = scope.entries.get(chain)
    if entry is not None and entry.is_current():
        return entry.value
    entry = None
    with suppress(Exception):
        evaluate_into(scope, chain, evaluate)
    entry = scope.entries.get(chain)
    if entry is None:
        scope.refused.add(chain)
        return None
    scope.ahead.add(chain)
    return entry.value


def fetch(chain: Any, evaluate: Callable[[Any], Any]) -> Any:
    """`read` for compiled code whose guards have let `keep` evaluate."""
    if is_inference():
        with torch.inference_mode(False), torch.no_grad():
            return fetch(chain, evaluate)
    scope = find_scope(chain)
    if scope is not None and chain in scope.ahead:
        scope.ahead.discard(chain)
        entry = scope.entries.get(chain)
        if entry is not None and entry.is_current():
            return entry.value  # counted as a miss when it was evaluated
        entry = None
    return read(chain, evaluate)


def find_scope(chain: Any) -> Scope | None:
    """The active scope that values of `chain` belong to."""
    return next((scope for scope in active_scopes() if scope.covers(chain)), None)


def read_traced(chain: Any, evaluate: Callable[[Any], Any]) -> Any:
    """`read` in compiled code: the value that a scope of eager code keeps, or one evaluation in the
    graph for each scope opened there.

    To the tracer, two addresses are equal if nothing wrote to the tensor in between. Where
    something did, it cannot tell, and hands the rest to eager code.
    """
    if _TRACED.opened.any:
        value = fetch_kept(chain)
        if value is not None:
            return value
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
