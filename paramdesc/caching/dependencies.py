"""What the value of a chain depends on: bound to it before the evaluation, or seen to enter it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from paramdesc.caching.bound import Bound
from paramdesc.caching.observer import Observer
from paramdesc.caching.watch import UNCOUNTED, Place, watch
from paramdesc.chain.chain import Chain
from paramdesc.torch_internals.dynamo import is_compiled

__all__ = ["Dependencies"]


class Dependencies:
    """The tensors, attributes and kept values that go into one evaluation of a chain.

    What was bound before the evaluation is watched in the state that it was in then: another
    thread may write to it meanwhile, and the value is then of neither state. What the
    evaluation itself writes is watched as it is afterwards.

    Args:
        chain: what is evaluated.
        closely: for a value that is kept for long: also tells forms and additions.
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
        self.watches = [watch(place, self.closely) for place in self.bound.tensors_now()]
        self.places = self.bound.places
        self.counted, self.empty = self.bound.counted, self.bound.empty
        self.sizes = self.bound.sizes

    @property
    def is_known(self) -> bool:
        """Whether nothing else can have a part in the value."""
        return self.bound.is_known and self.is_complete

    @property
    def is_foreign(self) -> bool:
        """Whether code outside of this library and torch has a part in the value."""
        return self.bound.is_foreign

    def evaluate(self, evaluate: Callable[[], Any]) -> Any:
        """What `evaluate()` gives, with everything that enters it taken in."""
        if not self.bound.is_foreign or any(map(is_compiled, self.chain.modules())):
            # Dynamo guards the function modes: an observer would compile a compiled map anew
            self.is_complete = not self.bound.is_foreign
            value = evaluate()
            self.has_changed = not self.is_unchanged()
            if self.has_changed:
                self._take_in_changes({id(watch.tensor) for watch in self.watches})
            return value
        observer = Observer()
        with observer.watching():
            value = evaluate()
        self.has_changed = not self.is_unchanged()
        if self.has_changed:
            self._take_in_changes(observer.written)
        self._take_in_used(observer)
        self._take_in_entered(observer, value)
        return value

    def is_unchanged(self) -> bool:
        """Whether everything bound is in the state in which it is watched."""
        try:
            return self.bound.is_current() and all(
                holder[key] is tensor and (version == UNCOUNTED or tensor._version == version)
                for holder, key, tensor, version, *_ in self.watches
            )
        except LookupError:
            return False

    def _take_in_changes(self, written: set[int]) -> None:
        """Watch what the evaluation has changed as it is now; what others have, as it was."""
        originals = {id(x) for holder in self._own() for x in holder.values()}
        before = {(id(w.holder), w.key, id(w.tensor)): w for w in self.watches}
        kept = self.watches  # holds the tensors by whose identity they are found
        self._look()
        for number, now in enumerate(self.watches):
            old = before.get((id(now.holder), now.key, id(now.tensor)))
            is_ours = id(now.tensor) in written and id(now.tensor) not in originals
            if old is not None and not is_ours:
                self.watches[number] = old
        del kept

    def _own(self) -> tuple[Any, ...]:
        return self.chain._parameters, self.chain._buffers

    def _take_in_used(self, observer: Observer) -> None:
        self.entries = list({id(entry): entry for entry in observer.entries}.values())
        for entry in self.entries:
            self.watches += entry.watches
            self.places = [*self.places, *entry.places]

    def _take_in_entered(self, observer: Observer, value: Any) -> None:
        """Watch what entered from nowhere: tensors of closures, tables and other modules."""
        known = {id(watch.tensor) for watch in self.watches} | {id(value)}
        known |= {id(entry.value) for entry in self.entries}
        entered = [ref(x) for key, x in observer.entered.items() if key not in known]
        observer.entered.clear()
        # what nobody holds any more was made on the way, where no function mode sees it
        found = [x for x in (reference() for reference in entered) if x is not None]
        self.is_complete = not found
        self.watches += [watch(Place({0: x}, 0, x), self.closely) for x in found]
