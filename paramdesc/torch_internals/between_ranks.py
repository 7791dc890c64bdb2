"""Sharing tensors between the processes of a group, with gradients."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

__all__ = ["all_told", "may_differ", "part_of_rank", "rank_and_size", "shared_rows"]

_MODULE = "torch.distributed"
_PARALLEL = "torch.nn.parallel.distributed"

Before = Callable[[torch.device], AbstractContextManager[None]]
"""Called before gradients are sent. Returns a context for sending them."""


def rank_and_size(group: Any) -> tuple[int, int]:
    """The rank of this process in `group`, and the size of `group`. (-1, 0) if it is not in it."""
    distributed: Any = sys.modules[_MODULE]
    return distributed.get_rank(group), max(0, distributed.get_world_size(group))


def may_differ() -> bool:
    """Whether the running DistributedDataParallel lets processes use other Parameters than others.

    It does with a search for unused parameters, and where some processes have fewer inputs.
    """
    parallel: Any = sys.modules.get(_PARALLEL)
    active = parallel and parallel.DistributedDataParallel._active_ddp_module
    if not active:
        return False
    joining = getattr(active, "_join_config", None)
    return bool(active.find_unused_parameters or getattr(joining, "enable", False))


def part_of_rank(count: int, rank: int, size: int) -> slice:
    """The part of `count` items for `rank`: equally many for each, or one more."""
    return slice(count * rank // size, count * (rank + 1) // size)


def all_told(numbers: Sequence[int], group: Any, device: torch.device) -> list[list[int]]:
    """The objects from all processes of `group`, in the order of ranks."""
    distributed: Any = sys.modules[_MODULE]
    own = torch.tensor(numbers, dtype=torch.int64, device=device)
    told = [torch.empty_like(own) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(told, own, group=group)
    return [x.tolist() for x in told]


def shared_rows(
    rows: Tensor, count: int, others: Sequence[Tensor], group: Any, before: Before
) -> Tensor:
    """All `count` rows, of which `rows` are the part of this process.

    The backward pass sums the gradients of all processes, and each process passes on the sum for
    its own rows. `others` are the tensors from which the other rows are computed: they get zeros,
    so that each process has a gradient for each of its tensors. An average over the processes then
    gives the same result as if each of them computed all rows. `before` is called in each backward
    pass.
    """
    if not (torch.is_grad_enabled() and rows.requires_grad):
        return gathered_rows(rows.detach(), count, group)
    result: Tensor = Shared.apply(group, before, count, rows, *others)  # type: ignore[no-untyped-call]
    return result


def gathered_rows(rows: Tensor, count: int, group: Any) -> Tensor:
    distributed: Any = sys.modules[_MODULE]
    _, size = rank_and_size(group)
    most = -(-count // size)
    own = rows.new_zeros((most, *rows.shape[1:]))
    own[: len(rows)] = rows
    parts = [torch.empty_like(own) for _ in range(size)]
    distributed.all_gather([numbers(x) for x in parts], numbers(own), group=group)
    slices = [part_of_rank(count, rank, size) for rank in range(size)]
    found = [part[: s.stop - s.start] for part, s in zip(parts, slices, strict=True)]
    return torch.cat(found)


def numbers(tensor: Tensor) -> Tensor:
    """A real view, since not all backends can send complex tensors."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


class Shared(Function):
    """The rows of all processes, in one tensor."""

    @staticmethod
    def forward(
        ctx: Any, group: Any, before: Before, count: int, rows: Tensor, *others: Tensor
    ) -> Tensor:
        ctx.group, ctx.before, ctx.count = group, before, count
        ctx.forms = [(x.shape, x.dtype, x.device) for x in others]
        return gathered_rows(rows, count, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        distributed: Any = sys.modules[_MODULE]
        total = gradient.clone(memory_format=torch.contiguous_format)
        with ctx.before(total.device):
            distributed.all_reduce(numbers(total), group=ctx.group)
        own = part_of_rank(ctx.count, *rank_and_size(ctx.group))
        zeros = (
            torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.forms
        )
        return None, None, None, total[own], *zeros
