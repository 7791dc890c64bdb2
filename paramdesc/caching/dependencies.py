"""What the value of a chain depends on: bound to it before the evaluation, or seen to enter it."""

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
        self.watches = [watch(place, self.closely) for place in self.bound.tensors()]

    @property
    def is_known(self) -> bool:
        """Whether nothing else can have a part in the value."""
        return self.bound.is_known and self.is_complete

    @property
    def is_foreign(self) -> bool:
        """Whether code outside of this library and torch has a part in the value."""
        return self.bound.is_foreign

    def make_check(self) -> Callable[[], Cause | None]:
        """What tells why something is not as it is watched."""
        bound = self.bound
        return make_check(self.watches, bound.places, bound.counted, bound.sizes, bound.empty)

    def evaluate(self, evaluate: Callable[[], Any]) -> Any:
        """What `evaluate()` gives, with everything that enters it taken in."""
        check = self.make_check()
        if not self.bound.is_foreign or any(map(is_compiled, self.chain.modules())):
            # Dynamo guards the function modes: an observer would compile a compiled map anew
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
        """Watch what the evaluation has changed as it is now; what others have, as it was."""
        own = self.chain._parameters, self.chain._buffers
        originals = {id(x) for holder in own for x in holder.values()}
        kept = self.watches  # holds the tensors by whose identity they are found
        before = {id(w.tensor): w for w in kept}
        self._look()
        for number, now in enumerate(self.watches):
            old = before.get(id(now.tensor))
            is_ours = id(now.tensor) in written and id(now.tensor) not in originals
            if old is not None and not is_ours:
                state = old[3:]  # from the version on
                self.watches[number] = Watch(now.holder, now.key, now.tensor, *state)

    def _take_in_entered(self, observer: Observer, value: Any) -> None:
        """Watch the tensors that entered and are bound nowhere that is known."""
        known = {id(watch.tensor) for watch in self.watches} | {id(value)}
        for entry in self.entries:
            known |= {id(entry.value), *(id(watch.tensor) for watch in entry.watches)}
        entered = [ref(x) for key, x in observer.entered.items() if key not in known]
        observer.entered.clear()
        # those that are gone by now were intermediate results that no function mode sees
        found = [x for x in (reference() for reference in entered) if x is not None]
        self.is_complete = not found
        self.watches += [watch(Place({0: x}, 0, x), self.closely) for x in found]
