"""What a value depends on: what is bound to its chain, and what enters the evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from paramdesc.caching.bound import Bound
from paramdesc.caching.observer import Observer
from paramdesc.caching.record import Cause
from paramdesc.caching.watch import Place, Watch, make_check, watch
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

    def __init__(self, chain: Chain, closely: bool = False) -> None:
        self.chain = chain
        self.closely = closely
        self.entries: list[Any] = []  # kept values that were used
        self.is_complete = True  # whether every tensor that entered is bound to the chain
        self.has_changed = False  # whether something bound was changed during the evaluation
        self._look()

    def _look(self) -> None:
        self.bound = Bound.of(self.chain, self.closely)
        self.watches = [watch(place, self.closely) for place in self.bound.tensors()]

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
        bound = self.bound
        return make_check(self.watches, bound.places, bound.counted, bound.sizes, bound.empty)

    def evaluate(self, evaluate: Callable[[], Any]) -> Any:
        """Call `evaluate()`, note everything that enters it, and return its result."""
        check = self.make_check()
        if not self.bound.is_foreign or any(map(is_compiled, self.chain.modules())):
            # Dynamo guards function modes, so an observer would recompile a compiled map
            self.is_complete = not self.bound.is_foreign
            value = evaluate()
            self.has_changed = check() is not None
            if self.has_changed:
                self._take_in_changes({id(watch.tensor) for watch in self.watches})
            return value
        observer = Observer()
        with observer.watching():
            value = evaluate()
        self.has_changed = check() is not None
        if self.has_changed:
            self._take_in_changes(observer.written)
        self.entries = list({id(entry): entry for entry in observer.entries}.values())
        self._take_in_entered(observer, value)
        return value

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

    def _take_in_entered(self, observer: Observer, value: Any) -> None:
        """Watch the tensors that entered the evaluation and that the walk has not found."""
        known = {id(watch.tensor) for watch in self.watches} | {id(value)}
        for entry in self.entries:
            known |= {id(entry.value), *(id(watch.tensor) for watch in entry.watches)}
        entered = [ref(x) for key, x in observer.entered.items() if key not in known]
        observer.entered.clear()
        # freed ones were intermediate results of operations that a function mode does not see
        found = [x for x in (reference() for reference in entered) if x is not None]
        self.is_complete = not found
        self.watches += [watch(Place({0: x}, 0, x), self.closely) for x in found]
