"""Evaluates several chains that are alike as one batch.

Their tensors are stacked, and the maps are applied once, to copies of the modules that hold the
stacked tensors. So an evaluation never shows the stacked tensors to another thread, and one that
fails leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.chain.alike import Alike, Spot, batching_of
from paramdesc.chain.clock import Clock
from paramdesc.chain.steps import has_stepped, mark_due
from paramdesc.torch_internals.stacking import Link, stacked, unstacked

__all__ = ["BatchError", "NotFiniteError", "evaluate_batch", "prepare"]


class BatchError(Exception):
    """The chains cannot be evaluated as one batch."""


class NotFiniteError(Exception):
    """A value has entries that are not finite."""


def prepare(chain: Any) -> None:
    """What an evaluation does before it applies the maps: note whether a step was made."""
    if "_steps" in vars(chain) and chain.training and has_stepped(chain):
        mark_due(chain)


def evaluate_batch(
    maps: Iterable[Module],
    members: Sequence[Alike],
    originals: int,
    link: Link,
    clock: Clock,
    observing: AbstractContextManager[Any],
) -> tuple[Sequence[Tensor], list[list[Tensor]]]:
    """The values of chains that are alike, and for each the tensors of its state that have moved.

    Args:
        maps: those of the first chain.
        members: the chains.
        originals: how many originals each of them has.
        link: connects the graphs of the values.
        clock: measures the maps.
        observing: a context for the evaluation of the maps.

    Raises:
        BatchError: if the maps do more than compute a tensor from tensors.
        Exception: whatever the maps raise. Nothing has been changed then.
    """
    columns = list(zip(*[member.tensors() for member in members], strict=True))
    inputs = [column[0] if is_shared(column) else stacked(link, column) for column in columns]
    versions = [x._version for x in inputs]
    rest = [None if is_shared(column) else 0 for column in columns]
    values: Any = tuple(inputs[:originals])
    dims: Any = tuple(rest[:originals])
    place = originals
    clock.start()
    with observing:
        for number, parametrization in enumerate(maps):
            copy = Copy(parametrization)
            end = place + len(copy.spots)
            own = tuple(inputs[place:end])
            apply: Any = copy.run
            is_stacked = None not in (*dims, *rest[place:end])  # vmap raises if nothing is
            is_leading = is_stacked and batching_of(parametrization) == "leading"
            if not (is_leading and are_in_step(values, own)):
                apply = torch.func.vmap(apply, (dims, tuple(rest[place:end])), randomness="error")
            values = (apply(values, own),)
            copy.check()
            clock.lap(number, parametrization)
            place, dims = end, (0,)
    (value,) = values
    if not isinstance(value, Tensor):
        raise BatchError(f"the maps returned {type(value).__name__}")
    if value.ndim == 0 or len(value) != len(members):
        raise BatchError("the maps did not keep the dimension of the batch")
    if value.device.type == "cpu" and not value.detach().isfinite().all():
        # on a CPU, a map that is evaluated alone may branch on values, and solve harder cases
        raise NotFiniteError
    rows = unstacked(link, value)
    written = [i for i, x in enumerate(inputs) if x._version != versions[i]]
    if any(rest[i] is None for i in written):
        raise BatchError("the maps wrote to a tensor that they share")
    with torch.no_grad():
        for i in written:
            torch._foreach_copy_(list(columns[i]), list(inputs[i].unbind()))
    for member in members:
        member.mark_moved()
    return rows, [[columns[i][row] for i in written] for row in range(len(members))]


def are_in_step(values: Sequence[Any], own: Sequence[Tensor]) -> bool:
    """Whether the first dimensions of all tensors coincide when they are broadcast."""
    return len({x.ndim for x in (*values, *own)}) == 1


def is_shared(column: Sequence[Tensor]) -> bool:
    """Whether it is one tensor, which all chains have."""
    return all(x is column[0] for x in column)


class Copy:
    """A copy of a map, in whose modules other tensors take the place of the map's own."""

    def __init__(self, original: Module) -> None:
        self.spots: list[Spot] = []
        self.copies: dict[Module, Any] = {}
        self.map = self._copy(original)
        self.before = [dict(vars(copy)) for copy in self.copies.values()]

    def _copy(self, module: Module) -> Any:
        if module in self.copies:
            return self.copies[module]
        copy: Any = object.__new__(type(module))
        self.copies[module] = copy
        state = vars(copy)
        state.update(vars(module))
        for kind in ("_parameters", "_buffers"):
            holder = state[kind] = dict(state[kind])
            self.spots += [(holder, name) for name, value in holder.items() if value is not None]
        state["_modules"] = {
            name: child if child is None else self._copy(child)
            for name, child in state["_modules"].items()
        }
        return copy

    def run(self, values: tuple[Tensor, ...], tensors: tuple[Tensor, ...]) -> Any:
        """`forward`, with these tensors in place of the map's own."""
        for (holder, name), tensor in zip(self.spots, tensors, strict=True):
            holder[name] = tensor
        value = self.map.forward(*values)
        for (holder, name), tensor in zip(self.spots, tensors, strict=True):
            if holder.get(name) is not tensor:
                raise BatchError(f"{name} was replaced")
        return value

    def check(self) -> None:
        """Raise if the evaluation has set an attribute of the map: each map would need its own."""
        for copy, before in zip(self.copies.values(), self.before, strict=True):
            now = vars(copy)
            if any(
                now.get(name) is not before.get(name)
                for name in now.keys() | before.keys()
                if name not in ("is_due", "_moved")
            ):
                raise BatchError("an attribute was set")
