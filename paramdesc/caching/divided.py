"""Batches that are divided between processes: each evaluates a part, and shares its values.

All processes of the group have the same chains with the same tensors, and read them in the same
order. Before sending values, they check that they are about to send the same ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from paramdesc.caching.active import active_scopes
from paramdesc.caching.meeting import Meeting, Point
from paramdesc.chain.chain import Chain
from paramdesc.errors import DividedBatchError
from paramdesc.torch_internals.between_ranks import (
    may_differ,
    part_of_rank,
    rank_and_size,
    shared_rows,
)

__all__ = ["evaluate_divided", "meeting_for"]

_DONE, _FAILED, _HAS_STATE = range(3)


def meeting_for(chain: Chain) -> Meeting | None:
    """The processes between which a batch with `chain` is divided. None if there are no others.

    Also None where DistributedDataParallel allows that some processes do not use the values.
    """
    for scope in active_scopes():
        if scope.batched and scope.meeting is not None and scope.covers(chain):
            meeting: Meeting = scope.meeting
            return meeting if meeting.size > 1 and not may_differ() else None
    return None


def evaluate_divided(
    names: Sequence[str],
    tensors: Sequence[Sequence[Tensor]],
    evaluate: Callable[[slice], tuple[Sequence[Tensor], bool]],
    meeting: Meeting,
) -> Tensor | None:
    """The stacked values of several chains. None if a map raised an error in one of the processes.

    Args:
        names: the names of the chains.
        tensors: the tensors that each of the chains is computed from.
        evaluate: returns the values of a part, and whether a state has moved.
        meeting: the processes.

    Raises:
        DividedBatchError: in all processes, if they are about to evaluate other chains, or if a
            map has a state that moves.
    """
    rank, size = rank_and_size(meeting.group)
    part = part_of_rank(len(names), rank, size)
    rows, outcome, failure = None, _FAILED, None
    try:
        values, has_state = evaluate(part)
        rows, outcome = torch.stack(tuple(values)), _HAS_STATE if has_state else _DONE
    except Exception as error:  # the others wait for this process
        failure = error
    form = () if rows is None else (rows.shape[1:], rows.dtype, rows.requires_grad)
    code = zlib.crc32(repr((list(names), [len(x) for x in tensors])).encode())
    form_code = zlib.crc32(repr(form).encode())
    device = tensors[0][0].device
    told = meeting.tell(Point.READ, names, [code, form_code, outcome], device)
    outcomes = {x[2] for x in told}
    if len({x[0] for x in told}) > 1:
        raise DividedBatchError.different(names)
    if rows is not None and _FAILED not in outcomes and len({x[1] for x in told}) > 1:
        raise DividedBatchError.in_forms(names, form_of(rows))
    if _HAS_STATE in outcomes:
        raise DividedBatchError.has_state(names)
    if rows is None or _FAILED in outcomes:
        if isinstance(failure, torch.OutOfMemoryError):
            raise failure
        return None
    own = {id(x) for chain in tensors[part] for x in chain}
    others = {id(x): x for chain in tensors for x in chain if x.requires_grad and id(x) not in own}
    number = meeting.count_batch(device)
    before = partial(meeting.before_backward, names, number)
    with meeting.exchanging(names):
        return shared_rows(rows, len(names), list(others.values()), meeting.group, before)


def form_of(rows: Tensor) -> str:
    """The form of each of `rows`, in words."""
    dtype = str(rows.dtype).removeprefix("torch.")
    gradient = "with a gradient" if rows.requires_grad else "without a gradient"
    return f"{dtype} tensors of shape {list(rows.shape[1:])} {gradient}"
