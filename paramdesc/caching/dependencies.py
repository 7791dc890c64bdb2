"""What a value depends on: what is bound to its chain, and what enters the evaluation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from paramdesc.caching.bound import Bound
from paramdesc.caching.gathered import watch_place
from paramdesc.caching.observer import Observer, Seen
from paramdesc.caching.record import Cause
from paramdesc.caching.watch import Place, Watch, make_check, watch
from paramdesc.chain.alike import Alike
from paramdesc.chain.chain import Chain
from paramdesc.torch_internals.dynamo import is_compiled

__all__ = ["Dependencies"]


class Dependencies:
    """The tensors, attributes and kept values that go into one evaluation of a chain.

    Everything that is bound to the chain is watched in its state before the evaluation: if
    another thread writes to a tensor meanwhile, the value may belong to neither state. What the
    evaluation itself writes is watched in its state afterwards.

    Args:
        chain: the chain to evaluate.
        closely: watch more, for values that are kept long: shapes, strides, and added attributes.
    """

    __slots__ = (
        "_check",
        "bound",
        "chain",
        "closely",
        "entries",
        "has_changed",
        "is_complete",
        "watches",
    )

    def __init__(self, chain: Chain, closely: bool = False) -> None:
        self.chain = chain
        self.closely = closely
        self.entries: list[Any] = []  # kept values that were used
        self.is_complete = True  # whether every tensor that entered is bound to the chain
        self.has_changed = False  # whether something bound was changed during the evaluation
        self._look()

    def _look(self) -> None:
        self.bound = Bound.of(self.chain, self.closely)
        self.watches = [
            watched
            for place in self.bound.tensors()
            for watched in watch_place(place, self.closely)
        ]
        self._check: Callable[[], Cause | None] | None = None

    @property
    def is_known(self) -> bool:
        """Whether the value can depend on nothing else."""
        return self.bound.is_known and self.is_complete

    @property
    def is_foreign(self) -> bool:
        """Whether code from outside this library and torch takes part in the evaluation."""
        return self.bound.is_foreign

    def make_check(self) -> Callable[[], Cause | None]:
        """A function that returns why something differs from its watched state, or None."""
        if self._check is None:
            self._check = make_check(self.watches, *self.bound.watched)
        return self._check

    @property
    def alike(self) -> Alike | None:
        """What is needed to evaluate the chain together with others. None if it must be alone."""
        bound = self.bound
        if bound.alike is ...:
            is_alone = any(map(is_compiled, self.chain.modules()))
            bound.alike = None if is_alone else Alike.of(self.chain)
        found: Alike | None = bound.alike
        return found

    def evaluate(self, evaluate: Callable[[], Any]) -> Any:
        """Call `evaluate()`, note everything that enters it, and return its result."""
        check, observer = self.make_check(), self.make_observer()
        with nullcontext() if observer is None else observer.watching():
            value = evaluate()
        self.finish(check, None if observer is None else observer.seen(), value)
        return value

    def make_observer(self) -> Observer | None:
        """What observes the evaluation, if code from outside of paramdesc and torch runs in it."""
        # Dynamo guards function modes, so an observer would recompile a compiled map
        is_observed = self.bound.is_foreign and not any(map(is_compiled, self.chain.modules()))
        return Observer() if is_observed else None

    def finish(
        self,
        check: Callable[[], Cause | None],
        seen: Seen | None,
        value: Any,
        written: set[int] | None = None,
    ) -> None:
        """Take in what an evaluation has changed and used.

        Args:
            check: made before the evaluation by `make_check`.
            seen: what the observer has seen, if there was one.
            value: the result.
            written: the identities of the tensors that the evaluation has written to, if known.
        """
        self.has_changed = check() is not None
        if self.has_changed:
            if written is None:
                written = seen.written if seen else {id(watch.tensor) for watch in self.watches}
            self._take_in_changes(written)
        if seen is None:
            self.is_complete = not self.bound.is_foreign
            return
        self.entries = list({id(entry): entry for entry in seen.entries}.values())
        self._take_in_entered(seen, value)

    def _take_in_changes(self, written: set[int]) -> None:
        """Watch what the evaluation changed in its new state, and everything else in the old."""
        own = self.chain._parameters, self.chain._buffers
        originals = {id(x) for holder in own for x in holder.values()}
        kept = self.watches  # keeps the tensors alive while they are looked up by identity
        before = {id(w.tensor): w for w in kept}
        self._look()
        for number, now in enumerate(self.watches):
            old = before.get(id(now.tensor))
            is_ours = id(now.tensor) in written and id(now.tensor) not in originals
            if old is not None and not is_ours:
                state = old[3:]  # from the version on
                self.watches[number] = Watch(now.holder, now.key, now.tensor, *state)

    def _take_in_entered(self, seen: Seen, value: Any) -> None:
        """Watch the tensors that entered the evaluation and that the walk has not found."""
        known = {id(watch.tensor) for watch in self.watches} | {id(value)}
        for entry in self.entries:
            known |= {id(entry.value), *(id(watch.tensor) for watch in entry.watches)}
        entered = [reference() for key, reference in seen.entered.items() if key not in known]
        # freed ones were intermediate results of operations that a function mode does not see
        found = [x for x in entered if x is not None]
        self.is_complete = not found
        if found:
            self.watches += [watch(Place({0: x}, 0, x), self.closely) for x in found]
            self._check = None
