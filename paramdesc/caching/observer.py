"""Observing an evaluation: the tensors that enter it, and the kept values that it uses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import ref

from torch import Tensor
from torch.overrides import TorchFunctionMode

from paramdesc.torch_internals.dynamo import is_dynamo_compiling

__all__ = ["OBSERVED", "Observer", "Seen"]


class Observed(threading.local):
    """The evaluations that are observed in this thread, outermost first."""

    def __init__(self) -> None:
        self.observers: tuple[Observer, ...] = ()


class Switch:
    """The number of observed evaluations in all threads: zero, almost always."""

    def __init__(self) -> None:
        self.count = 0
        self.here = Observed()

    def note(self, entry: Any) -> None:
        """Note that the evaluations observed in this thread use the value of `entry`."""
        for observer in self.here.observers if entry.watches else ():
            observer.entries.append(entry)  # without watches, it stands for tensors that enter


OBSERVED = Switch()


class Seen(NamedTuple):
    """What an observer has seen."""

    entered: dict[int, ref[Tensor]]
    written: set[int]
    entries: list[Any]


class Observer(TorchFunctionMode):
    """Notes each tensor that is passed to a function and is not the result of an earlier one.

    `entered` has these tensors by identity, and `written` the identities of those that a function
    wrote to.
    """

    changes_nothing = True

    def __init__(self) -> None:
        super().__init__()
        self.entered: dict[int, Tensor] = {}
        self.written: set[int] = set()
        self.entries: list[Any] = []
        self._made: dict[int, ref[Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_dynamo_compiling():
            return func(*args, **kwargs)  # a compiled function in a map cannot be observed
        seen = [x for x in tensors_in((args, kwargs)) if not self.is_made(x)]
        versions = [0 if x.is_inference() else x._version for x in seen]
        result = func(*args, **kwargs)
        for x, version in zip(seen, versions, strict=True):
            self.entered.setdefault(id(x), x)
            if not x.is_inference() and x._version != version:
                self.written.add(id(x))
        entered = self.entered
        for x in tensors_in((result,)):
            if id(x) not in entered:
                self._made[id(x)] = ref(x)
        return result

    def seen(self) -> Seen:
        """What was observed. The tensors are no longer kept alive."""
        entered = {key: ref(x) for key, x in self.entered.items()}
        self.entered.clear()
        return Seen(entered, self.written, self.entries)

    def is_made(self, tensor: Tensor) -> bool:
        """Whether `tensor` is the result of an observed function."""
        made = self._made.get(id(tensor))
        return made is not None and made() is tensor

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Observe the calling thread inside the block."""
        here, outer = OBSERVED.here, OBSERVED.here.observers
        OBSERVED.count += 1
        here.observers = (*outer, self)
        try:
            with self:
                yield
        finally:
            here.observers = outer
            OBSERVED.count -= 1


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors among `values`, also inside of lists, tuples and dicts."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple, dict)):
            yield from tensors_in(value)
