"""Deferred gradients: a scope hands out leaves, and runs the backward pass of the maps once.

The gradients that reach a leaf are summed. `Deferral.backward` propagates the sums through the
graphs that the leaves were cut from, into `.grad` of the originals. On a device, they may reach it
on different streams, and each use of a sum waits for the last one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from paramdesc.caching.collector import Collector
from paramdesc.caching.entry import Entry
from paramdesc.caching.record import Cause, Reason
from paramdesc.errors import DeferredGradientError
from paramdesc.torch_internals.captures import current_capture
from paramdesc.torch_internals.gathered import (
    Gathering,
    gather,
    gathering_behind,
    is_gathering,
    reduce,
    shard_again,
)
from paramdesc.torch_internals.tensors import is_wrapper

__all__ = ["Deferral"]


class Deferred:
    """A value, the leaf that was handed out instead, and the sum of the leaf's gradients."""

    __slots__ = ("collector", "expiry", "leaf", "value", "watches")

    def __init__(self, value: Tensor, entry: Entry, collector: Collector) -> None:
        self.value = value
        self.leaf = ref(entry.value)  # the scope holds it, and so do graphs that lead to it
        self.expiry = entry.expiry
        self.watches = entry.watches
        self.collector = collector


class Deferral:
    """The values of one scope whose gradients are deferred."""

    def __init__(self) -> None:
        # by identity: threads add and remove without a lock
        self.held: dict[int, Deferred] = {}
        self.capture = current_capture()

    @property
    def may_cut(self) -> bool:
        """Whether the scope is in the capture in which it was opened, or in none.

        In a capture that began inside of the scope, gradients must reach the originals in the
        graph, or the end of the scope would add them once, and not at each replay.
        """
        return current_capture() is self.capture

    def leaf_of(self, value: Tensor, name: str) -> tuple[Tensor, Collector]:
        """A leaf over the memory of `value`, and the collector for its gradients."""
        refuse_unused_parameters(name)
        return value.detach().requires_grad_(), Collector(name)

    def add(self, value: Tensor, entry: Entry, collector: Collector) -> None:
        """Hold `value` with its graph, and collect the gradients of the leaf that `entry` keeps."""
        entry.node = collector.watch(entry.value)
        check: Callable[..., Cause | None] = entry.why_stale
        name = collector.name

        def why_stale(in_any_mode: bool = False) -> Cause | None:
            refuse_unused_parameters(name)
            return check(in_any_mode)

        entry.why_stale = why_stale
        deferred = Deferred(value, entry, collector)
        for held in self.values:
            # no gradient can reach a leaf that has been freed
            if not held.collector.sums and held.leaf() is None:
                self.held.pop(id(held), None)
        self.held[id(deferred)] = deferred

    @property
    def values(self) -> list[Deferred]:
        """The values, in the order of their evaluation."""
        return list(self.held.values())

    def waiting(self) -> list[Deferred]:
        """The values whose leaves a gradient has reached."""
        return waiting_in(self.values)

    def leaves(self) -> list[Tensor]:
        """The leaf tensors in the graphs of the values."""
        return [leaf for held in self.values for leaf in leaves_below(held.value)]

    def pending(self, parameters: Iterable[Tensor]) -> list[str]:
        """The names of the tensors with deferred gradients that lead to one of `parameters`."""
        found = self.leading_to(parameters, self.waiting())
        return [held.collector.name for held in found]

    def leading_to(self, parameters: Iterable[Tensor], values: list[Deferred]) -> list[Deferred]:
        """The elements of `values` whose graphs lead to one of `parameters`."""
        wanted = {id(parameter) for parameter in parameters} if values else set()
        graphs = {graph_of(held.value): held for held in values}
        leading = {
            graph
            for graph, held in graphs.items()
            if not wanted.isdisjoint(all_leaves_below([held], self.values))
        }
        return [held for held in values if graph_of(held.value) in leading]

    def backward(
        self, retain_graph: bool = False, parameters: Iterable[Tensor] | None = None
    ) -> None:
        """Run the backward pass of the maps, for all gradients that have reached the leaves.

        With `parameters`, only for the values that lead to one of them.
        """
        values = self.values
        if parameters is not None:
            values = self.leading_to(parameters, values)
        waiting = waiting_in(values)
        if waiting:
            for held in values:
                refuse_sharded_originals(held)
            gatherings = gatherings_below(values)
            gather(gatherings)
            kept = Gradients(held.value for held in values)
            try:
                while waiting:
                    run_backward(first_of(waiting, values), retain_graph)
                    waiting = waiting_in(values)
            except BaseException:
                kept.restore()
                self.drop()
                shard_again(gatherings)
                raise
            reduce(gatherings)
        if not retain_graph:
            self.end(values)

    def drop(self) -> list[str]:
        """Drop the sums. Returns the names of the tensors whose gradients are lost."""
        names = [held.collector.name for held in self.waiting()]
        for held in self.values:
            held.collector.sums.clear()
        self.end(self.values)
        return names

    def end(self, values: list[Deferred]) -> None:
        """Expire the leaves of `values`, and refuse gradients that reach them later."""
        for held in values:
            held.expiry.cause = Cause(Reason.CONSUMED)
            held.collector.ended = True
            self.held.pop(id(held), None)


def waiting_in(values: list[Deferred]) -> list[Deferred]:
    """The elements of `values` whose leaves a gradient has reached."""
    return [held for held in values if held.collector.sums]


def first_of(waiting: list[Deferred], values: list[Deferred]) -> list[Deferred]:
    """The elements of `waiting` to which no other element leads.

    A chain leads to another if its original is parametrized by it. An original that several values
    share must get the sum of their gradients in one backward pass.
    """
    below = all_leaves_below(waiting, values)
    return [held for held in waiting if id(held.leaf()) not in below] or waiting


def all_leaves_below(starts: list[Deferred], values: list[Deferred]) -> set[int]:
    """The identities of the leaves that `starts` lead to, also through other deferred values."""
    by_leaf = {id(held.leaf()): held for held in values}
    below: set[int] = set()
    heads, graphs = list(starts), set[Any]()
    for held in heads:  # the list grows
        graph = graph_of(held.value)
        if graph in graphs:
            continue
        graphs.add(graph)
        found = {id(leaf) for leaf in leaves_below(held.value)} - below
        below |= found
        heads += [by_leaf[leaf] for leaf in found if leaf in by_leaf]
    return below


def run_backward(waiting: list[Deferred], retain_graph: bool) -> None:
    totals = []
    for held in waiting:
        total = held.collector.take()
        totals.append(total if total is None else total.to(held.value.dtype))
    torch.autograd.backward([held.value for held in waiting], totals, retain_graph=retain_graph)


class Gradients:
    """The `.grad` of all leaves below some values, to be restored after a failure."""

    def __init__(self, values: Iterable[Tensor]) -> None:
        one_of_each = {graph_of(value): value for value in values}.values()
        leaves = {id(leaf): leaf for value in one_of_each for leaf in leaves_below(value)}
        self.kept = [
            (leaf, leaf.grad, None if leaf.grad is None else leaf.grad.clone())
            for leaf in leaves.values()
        ]

    def restore(self) -> None:
        for leaf, gradient, copy in self.kept:
            if gradient is not None and copy is not None:
                with torch.no_grad():
                    gradient.copy_(copy)
            leaf.grad = gradient


def graph_of(value: Tensor) -> Any:
    """What identifies the graph of `value`. Values that were evaluated together have one graph."""
    return id(value) if value.grad_fn is None else value.grad_fn


def leaves_below(value: Tensor) -> list[Tensor]:
    """The leaves that a backward pass from `value` accumulates into."""
    if value.grad_fn is None:
        return [value] if value.requires_grad else []
    found: dict[int, Tensor] = {}
    nodes, seen = [value.grad_fn], {value.grad_fn}
    for node in nodes:  # the list grows
        if node.name() == "torch::autograd::AccumulateGrad":
            leaf: Any = node
            found[id(leaf.variable)] = leaf.variable
            behind = gathering_behind(leaf.variable)
            if behind is not None:  # where its gradient goes
                found[id(behind.shard)] = behind.shard
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                nodes.append(below)
    return list(found.values())


def gatherings_below(values: list[Deferred]) -> list[Gathering]:
    """What is known of the originals of `values` that FSDP2 gathers."""
    if not is_gathering():
        return []
    one_of_each = {graph_of(held.value): held.value for held in values}.values()
    leaves = (leaf for value in one_of_each for leaf in leaves_below(value))
    found = (gathering_behind(leaf) for leaf in leaves)
    return list({id(x): x for x in found if x is not None}.values())


def refuse_unused_parameters(name: str) -> None:
    """Raise if DistributedDataParallel would consider the originals unused.

    It looks for them in the graph of the output, which ends at the leaves. It would not average
    the gradients that the originals get at the end of the scope.
    """
    parallel: Any = sys.modules.get("torch.nn.parallel.distributed")
    active = parallel and parallel.DistributedDataParallel._active_ddp_module
    if active and (active.find_unused_parameters or active.static_graph):
        raise DeferredGradientError.unused(name)


def refuse_sharded_originals(held: Deferred) -> None:
    """Raise if an original has been sharded meanwhile: its gradient would never be reduced."""
    for watch in held.watches:
        try:
            now = watch.holder[watch.key]
        except LookupError:
            continue
        is_sharded_again = (
            isinstance(now, Tensor) and is_wrapper(now) and not is_wrapper(watch.tensor)
        )
        if is_sharded_again and gathering_behind(watch.tensor) is None:
            raise DeferredGradientError.sharded(held.collector.name)
