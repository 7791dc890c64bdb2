"""Stacks tensors that belong together, and gives each a row of a result back.

A tensor whose row gets no gradient gets none either, as if it had been alone: its `.grad` stays
None, and no optimizer moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, Variable

current_pass = torch._C._current_graph_task_id
queue_callback = Variable._execution_engine.queue_callback

__all__ = ["Link", "stacked", "unstacked"]


class Link:
    """What the rows of one result have in common.

    Args:
        when_used: called by each backward pass that reaches one of the rows, with whether an
            earlier one has freed their graph.
    """

    def __init__(self, when_used: Callable[[bool], None]) -> None:
        self.when_used = when_used
        self.passes: dict[int, list[bool]] = {}  # which rows have a gradient, by backward pass
        self.is_differentiated = False

    def begin(self, gradients: Sequence[Tensor | None]) -> None:
        """Note which rows have a gradient in the present backward pass. Threads may run several."""
        key = current_pass()
        self.passes[key] = [gradient is not None for gradient in gradients]

        def forget() -> None:
            self.passes.pop(key, None)

        queue_callback(forget)

    def select(self, rows: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients of the tensors whose rows got one.

        After a pass that was differentiated itself, gradients also arrive by tensors that the maps
        have saved. Then no row can be told to have none.
        """
        is_free = self.is_differentiated
        self.is_differentiated |= torch.is_grad_enabled()
        known = None if is_free else self.passes.get(current_pass())
        if known is None:
            return list(rows)
        return [row if has_one else None for row, has_one in zip(rows, known, strict=True)]


def stacked(link: Link, tensors: Sequence[Tensor]) -> Tensor:
    """The tensors as one, along a new first dimension."""
    if torch.is_grad_enabled() and tensors[0].requires_grad:
        result: Tensor = Stack.apply(link, *tensors)  # type: ignore[no-untyped-call]
        return result
    with torch.no_grad():
        return torch.stack(tuple(tensors))


def unstacked(link: Link, tensor: Tensor) -> Sequence[Tensor]:
    """The rows of `tensor`, each in memory of its own: it lives as long as that row is used."""
    if tensor.requires_grad:
        rows: tuple[Tensor, ...] = Unstack.apply(link, tensor)  # type: ignore[no-untyped-call]
        return rows
    return copies_of_rows(tensor)


def copies_of_rows(tensor: Tensor) -> tuple[Tensor, ...]:
    unbind_copy: Any = torch.unbind_copy  # its annotation says None
    rows: tuple[Tensor, ...] = unbind_copy(tensor)
    return rows


class Stack(Function):
    """`torch.stack`, with no gradient for a tensor whose row gets none.

    The gradients are rows of one tensor. Copies would take as much memory again.
    """

    @staticmethod
    def forward(ctx: Any, link: Link, *tensors: Tensor) -> Tensor:
        ctx.link = link
        return torch.stack(tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        # outputs of unbind could not be written to in place where they have a graph
        has_graph = torch.is_grad_enabled()
        rows = [gradient[i] for i in range(len(gradient))] if has_graph else gradient.unbind()
        return None, *ctx.link.select(rows)


class Unstack(Function):
    """The rows of a tensor, linked to the `Stack`s below."""

    @staticmethod
    def forward(ctx: Any, link: Link, tensor: Tensor) -> tuple[Tensor, ...]:
        ctx.link = link
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(tensor.new_empty(0))  # to see whether the graph was freed
        return copies_of_rows(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, Tensor | None]:
        link: Link = ctx.link
        link.when_used(is_freed(ctx))
        link.begin(gradients)
        some = next((x for x in gradients if x is not None), None)
        if some is None:
            return None, None
        zeros = torch.zeros_like(some) if any(x is None for x in gradients) else some
        return None, torch.stack([zeros if x is None else x for x in gradients])


def is_freed(ctx: Any) -> bool:
    """Whether a backward pass has freed the graph."""
    try:
        _ = ctx.saved_tensors
    except RuntimeError:
        return True
    return False
