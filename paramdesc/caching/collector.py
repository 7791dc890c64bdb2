"""The sum of the gradients that reach one leaf.

Threads may share a scope, so a gradient is taken before autograd accumulates it. A hook that takes
`leaf.grad` afterwards would race with the accumulation of another thread: torch holds a lock
during the accumulation, but not while hooks run.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from paramdesc.caching.origin import Origin, origin_of
from paramdesc.errors import DeferredGradientError
from paramdesc.torch_internals.captures import current_capture

__all__ = ["Collector"]


class Collector:
    """Sums the gradients that reach one leaf. The leaf refers to it, and not vice versa.

    Gradients may arrive in several threads. A thread takes the sum out of `sums`, adds to it and
    puts it back, so that no other thread has it meanwhile, and needs no lock, which an interrupt
    could leave locked.
    """

    __slots__ = ("capture", "ended", "name", "sums")

    def __init__(self, name: str) -> None:
        self.name = name
        self.capture = current_capture()
        self.sums: list[Sum] = []  # more than one only while threads add at the same time
        self.ended = False

    def watch(self, leaf: Tensor) -> Node:
        """Collect the gradients of `leaf`. Returns the node of the graph that must be kept.

        A leaf that is used after its node has been freed gets a new node without the hook. Its
        gradients are taken after the accumulation.
        """
        node = get_gradient_edge(leaf).node
        node.register_prehook(self.before_accumulation)
        leaf.register_post_accumulate_grad_hook(self.after_accumulation)  # type: ignore[no-untyped-call]
        return node

    def before_accumulation(self, gradients: tuple[Tensor | None, ...]) -> tuple[None]:
        (gradient,) = gradients
        if gradient is not None:
            self.add(gradient, is_shared=True)
        return (None,)  # nothing is left to accumulate

    def after_accumulation(self, leaf: Tensor) -> None:
        gradient = leaf.grad
        leaf.grad = None
        if gradient is not None:
            self.add(gradient, is_shared=False)

    def add(self, gradient: Tensor, is_shared: bool) -> None:
        """Add `gradient` to the sum. A shared one may be written to by others later."""
        if self.ended:
            raise DeferredGradientError.late(self.name)
        if torch.is_grad_enabled():  # by create_graph=True
            raise DeferredGradientError.with_graph(self.name)
        if gradient.dtype in (torch.float16, torch.bfloat16):
            gradient = gradient.float()  # a sum of sixteen in half precision loses four bits
            is_shared = False
        total = self.take()
        if total is None:
            total = gradient.clone() if is_shared else gradient
        else:
            total = added(total, gradient)
        self.sums.append(Sum(total, origin_of(total)))

    def take(self) -> Tensor | None:
        """The sum, usable on the current stream. The next one starts anew.

        Raises:
            DeferredGradientError: if a capture of a CUDA graph has begun or ended since the leaf
                was made. What is summed in a capture is there only during a replay.
        """
        if current_capture() is not self.capture:
            raise DeferredGradientError.captured(self.name)
        total: Tensor | None = None
        while self.sums:
            try:
                part = self.sums.pop()
            except IndexError:  # another thread took the last one
                break
            if part.origin is not None:
                part.origin.arrive()
            total = part.tensor if total is None else added(total, part.tensor)
        return total


class Sum(NamedTuple):
    """A sum of gradients to which nobody else refers, and where it was computed."""

    tensor: Tensor
    origin: Origin | None


def added(total: Tensor, gradient: Tensor) -> Tensor:
    """The sum, in the memory of `total` if possible."""
    if total.layout == gradient.layout == torch.strided:
        return total.add_(gradient)
    return total + gradient
