"""Evaluating similar chains together: the first read in a batched scope serves its whole group.

Values are kept by the same rules as those of single evaluations. Where a batch is not possible, the
reader evaluates its chain alone, which also shows the exception of a map where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paramdesc.caching.active import active_scopes, find_scope
from paramdesc.caching.current import is_kept
from paramdesc.caching.dependencies import Dependencies
from paramdesc.caching.divided import evaluate_divided, meeting_for
from paramdesc.caching.expiry import Expiry
from paramdesc.caching.fresh import keep_in
from paramdesc.caching.last_read import remembered
from paramdesc.caching.lasting import contents_of, keep_to_last, may_last
from paramdesc.caching.meeting import Meeting
from paramdesc.caching.observer import OBSERVED, Seen
from paramdesc.caching.record import Cause, Reason
from paramdesc.caching.scopes import Scope
from paramdesc.chain.alike import batching_of
from paramdesc.chain.batch import NotFiniteError, evaluate_batch, prepare
from paramdesc.chain.chain import Chain
from paramdesc.chain.clock import Clock
from paramdesc.chain.evaluation import evaluate as evaluate_plainly
from paramdesc.chain.transient import transient_of
from paramdesc.chain.warm import is_warm
from paramdesc.errors import BatchedGraphError, DividedBatchError
from paramdesc.linalg.devices import fewest_together
from paramdesc.torch_internals.mode import (
    Mode,
    current_mode,
    has_dual_tensors,
    has_own_functions,
    is_grad_enabled,
    is_plain,
)
from paramdesc.torch_internals.placeholders import is_stand_in
from paramdesc.torch_internals.stacking import Link, unstacked

__all__ = ["evaluate_together"]


class Member:
    """A chain that is to be evaluated with others.

    What its value depends on is noted when the member is made, before the evaluation.

    Args:
        chain: the chain.
        scope: where the value will be kept.
        lasts: whether it will outlive its block.
    """

    __slots__ = ("chain", "check", "contents", "dependencies", "lasts", "scope")

    def __init__(self, chain: Chain, scope: Scope, lasts: bool) -> None:
        self.chain = chain
        self.scope = scope
        self.lasts = lasts
        self.dependencies = Dependencies(chain, closely=lasts)
        self.check = self.dependencies.make_check()
        self.contents = contents_of(scope, chain, self.dependencies) if lasts else None

    @classmethod
    def of(cls, chain: Any) -> Member | None:
        """None if no scope keeps the value."""
        if not chain.training:
            lasting = find_scope(chain, lasts=True)
            if lasting is not None and may_last(chain):
                with everywhere():
                    return cls(chain, lasting, True)
        owner = find_scope(chain)
        return None if owner is None else cls(chain, owner, False)

    def ends_with(self, other: Member) -> bool:
        """Whether both values live by the same rules, so that one graph may serve them."""
        is_same = self.lasts is other.lasts
        return is_same and self.scope.deferral is other.scope.deferral

    def form(self) -> Any:
        """What it has in common with those that it can be evaluated with. None if with none."""
        alike = self.dependencies.alike
        if alike is None or transient_of(self.chain).alone == alike.settings:
            return None
        prepare(self.chain)
        return alike.form()

    def keep(self, value: Any, mode: Mode, batch: list[Expiry]) -> Any:
        """Keep the value, and return what a reader gets."""
        chain, scope = self.chain, self.scope
        remembered(chain, value)
        scope.record_of(chain).misses += 1
        if not self.lasts:
            return keep_in(scope, chain, value, mode, self.dependencies, batch)
        if keep_to_last(scope, chain, value, mode, self.dependencies, self.contents):
            return value
        scope.record_of(chain).misses -= 1  # an ordinary scope counts it, if there is one
        owner = find_scope(chain)
        if owner is not None:
            owner.record_of(chain).misses += 1
        return keep_in(owner, chain, value, mode, self.dependencies, batch)


def everywhere() -> Any:
    """A context for values that can be used inside and outside of inference mode."""
    stack, gradients = ExitStack(), is_grad_enabled()
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.set_grad_enabled(gradients))  # leaving the mode enables them
    return stack


def evaluate_together(chain: Any) -> Any:
    """A fresh value of `chain`, evaluated with all that are alike. None if it must be alone."""
    first = max(chain.originals(), key=Tensor.numel)
    is_matrix_function = all(batching_of(x) == "leading" for x in chain.maps())
    is_iterative = any(map(is_warm, chain.maps()))
    fewest = fewest_together(first, is_matrix_function, is_iterative)
    meeting = None if is_iterative else meeting_for(chain)
    if (
        (fewest is None and meeting is None)
        or not (is_plain() or is_stand_in(first))
        or has_own_functions()
        or has_dual_tensors()
        or OBSERVED.here.observers
    ):
        return None
    groups = groups_of(chain)
    leader = None if is_less(sum(len(x) for _, x in groups), fewest, meeting) else Member.of(chain)
    form = None if leader is None else leader.form()
    if leader is None or form is None:
        return None
    if leader.lasts or leader.dependencies.is_foreign:
        meeting = None  # not all processes may need the value, or it may be an own one of each
    with ExitStack() as held:
        if leader.lasts:
            held.enter_context(leader.scope.record_of(chain).lock)
            if is_kept(leader.scope, chain):
                return leader.scope.entries[chain].value
        members = [leader, *mates_of(leader, groups, form, held)]
        if is_less(len(members), fewest, meeting):
            return None
        try:
            if meeting is None or len(members) < meeting.size:
                batch = evaluate_members(members)
            else:
                batch = evaluate_between_ranks(members, fewest, meeting)
        except DividedBatchError:
            raise
        except NotFiniteError:
            set_apart(members)
            return None
        except Exception as error:  # the evaluation of each alone shows whose it is
            set_apart(members)
            for member in () if isinstance(error, torch.OutOfMemoryError) else members:
                transient_of(member.chain).alone = form[0]
            return None
        return keep_values(members, batch)


def is_less(count: int, fewest: int | None, meeting: Meeting | None) -> bool:
    """Whether `count` chains are too few to be evaluated together, or divided between processes."""
    if meeting is not None and count >= meeting.size:
        return False
    return fewest is None or count < fewest


def set_apart(members: list[Member]) -> None:
    """Have these chains evaluated one by one until the end of the block."""
    for scope in active_scopes():
        if scope.batched:
            scope.parts.update({member.chain: [] for member in members})


def groups_of(chain: Any) -> list[tuple[Scope, list[Any]]]:
    """The chains that look like `chain` and are covered with it, by scope."""
    looks = looks_of(chain)
    return [
        (scope, scope.parts[chain] if chain in scope.parts else listed_in(scope).get(looks, []))
        for scope in active_scopes()
        if scope.batched and scope.covers(chain)
    ]


def mates_of(
    leader: Member, groups: list[tuple[Scope, list[Any]]], form: Any, held: ExitStack
) -> Iterator[Member]:
    """The chains that can be evaluated with `leader`: alike, and without a value."""
    seen = {leader.chain}
    for scope, group in groups:
        parts: dict[Any, list[Any]] = {form[:2]: [leader.chain]}
        for chain in group:
            if chain in seen or is_kept_in(scope, chain):
                continue
            seen.add(chain)
            member = Member.of(chain)
            found = None if member is None else member.form()
            # the next read need not search all of them again
            part = parts.setdefault(None if found is None else found[:2], [])
            part.append(chain)
            if member is None or found != form or not member.ends_with(leader):
                continue
            if member.lasts:
                lock = member.scope.record_of(chain).lock
                if not lock.acquire(blocking=False):  # another thread evaluates it
                    continue
                held.callback(lock.release)
            yield member
        for key, part in parts.items():
            scope.parts.update(dict.fromkeys(part, [] if key is None else part))


def is_kept_in(scope: Scope, chain: Any) -> bool:
    """Whether `scope` or its lasting part keeps a current value of `chain`."""
    return is_kept(scope, chain) or (scope.lasting is not None and is_kept(scope.lasting, chain))


def listed_in(scope: Scope) -> dict[Any, list[Any]]:
    """The chains covered by `scope`, by their looks."""
    if scope.groups is None:
        scope.groups = {}
        for chain in scope.listed():
            if isinstance(chain, Chain):
                scope.groups.setdefault(looks_of(chain), []).append(chain)
    groups: dict[Any, list[Any]] = scope.groups
    return groups


def looks_of(chain: Any) -> Any:
    """A quick way to distinguish most chains: the types of the maps, and a shape."""
    state = vars(chain)
    types = [type(child) for child in state["_modules"].values()]
    for holder in (state["_parameters"], state["_buffers"]):
        for original in holder.values():
            return *types, original.shape
    return tuple(types)


class Batch(NamedTuple):
    """The values of several members, and what was noted during their evaluation."""

    rows: Sequence[Tensor]
    written: list[list[Tensor]]
    mode: Mode
    seen: Seen | None
    expiries: list[Expiry]
    seconds: dict[str, float]


def evaluate_members(members: list[Member]) -> Batch:
    """Evaluate all members. Nothing is kept yet."""
    leader = members[0]
    with everywhere() if leader.lasts else nullcontext():
        mode = current_mode()
        observer = leader.dependencies.make_observer()
        clock, expiries = Clock({}), list[Expiry]()
        names = [member.scope.record_of(member.chain).name for member in members]
        alike: list[Any] = [member.dependencies.alike for member in members]
        rows, written = evaluate_batch(
            leader.chain.maps(),
            alike,
            len(leader.chain.original_names()),
            Link(consume(expiries, names)),
            clock,
            nullcontext() if observer is None else observer.watching(),
        )
        seen = None if observer is None else observer.seen()
        return Batch(rows, written, mode, seen, expiries, clock.seconds)


def evaluate_between_ranks(members: list[Member], fewest: int | None, meeting: Meeting) -> Batch:
    """Evaluate a part of the members, and get the values of the others. Nothing is kept yet."""
    mode, clock, expiries = current_mode(), Clock({}), list[Expiry]()
    names = [member.scope.record_of(member.chain).name for member in members]
    alike: list[Any] = [member.dependencies.alike for member in members]

    def evaluate_part(part: slice) -> tuple[Sequence[Tensor], bool]:
        own = members[part]
        if fewest is not None and len(own) >= fewest:
            with suppress(NotFiniteError):
                rows, written = evaluate_batch(
                    own[0].chain.maps(),
                    alike[part],
                    len(own[0].chain.original_names()),
                    Link(consume(expiries, names)),
                    clock,
                    nullcontext(),
                )
                return rows, any(written)
        return [evaluate_plainly(member.chain, clock) for member in own], False

    tensors = [member.tensors() for member in alike]
    value = evaluate_divided(names, tensors, evaluate_part, meeting)
    if value is None:
        raise NotFiniteError  # or another failure: the evaluation of each alone shows whose it is
    rows = unstacked(Link(consume(expiries, names)), value)
    return Batch(rows, [[] for _ in members], mode, None, expiries, clock.seconds)


def keep_values(members: list[Member], batch: Batch) -> Any:
    """Keep the values, and return what the reader of the first one gets."""
    share = [(name, seconds / len(members)) for name, seconds in batch.seconds.items()]
    values = []
    with everywhere() if members[0].lasts else nullcontext():
        for member, value, tensors in zip(members, batch.rows, batch.written, strict=True):
            written = {id(x) for x in tensors}
            member.dependencies.finish(member.check, batch.seen, value, written)
            values.append(member.keep(value, batch.mode, batch.expiries))
            record = member.scope.record_of(member.chain)
            record.together = len(members)
            for name, seconds in share:
                record.seconds[name] = record.seconds.get(name, 0.0) + seconds
    return values[0]


def consume(expiries: list[Expiry], names: list[str]) -> Callable[[bool], None]:
    """What to do in a backward pass through values with one graph: they expire together."""

    def expire_all(is_freed: bool) -> None:
        if is_freed:
            raise BatchedGraphError(names)
        for expiry in expiries:
            expiry.cause = Cause(Reason.CONSUMED)

    return expire_all
