"""Batches that are divided between processes: each evaluates a part, and shares its values.

All processes of the group have the same chains with the same tensors, and read them in the same
order. Before sending values, they check that they are about to send the same ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from paramdesc.caching.active import active_scopes
from paramdesc.chain.chain import Chain
from paramdesc.errors import DividedBatchError
from paramdesc.torch_internals.between_ranks import (
    all_told,
    part_of_rank,
    rank_and_size,
    shared_rows,
)

__all__ = ["evaluate_divided", "group_for"]

_DONE, _FAILED, _HAS_STATE = range(3)


def group_for(chain: Chain) -> Any:
    """The processes between which a batch with `chain` is divided. None if there are no others."""
    for scope in active_scopes():
        if scope.batched and scope.process_group is not None and scope.covers(chain):
            return scope.process_group if rank_and_size(scope.process_group)[1] > 1 else None
    return None


def evaluate_divided(
    names: Sequence[str],
    tensors: Sequence[Sequence[Tensor]],
    evaluate: Callable[[slice], tuple[Sequence[Tensor], bool]],
    group: Any,
) -> Tensor | None:
    """The stacked values of several chains. None if a map raised an error in one of the processes.

    Args:
        names: the names of the chains.
        tensors: the tensors that each of the chains is computed from.
        evaluate: returns the values of a part, and whether a state has moved.
        group: the processes.

    Raises:
        DividedBatchError: in all processes, if they are about to evaluate other chains, or if a
            map has a state that moves.
    """
    rank, size = rank_and_size(group)
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
    told = all_told([code, form_code, outcome], group, tensors[0][0].device)
    outcomes = {x[2] for x in told}
    if len({x[0] for x in told}) > 1 or (_FAILED not in outcomes and len({x[1] for x in told}) > 1):
        raise DividedBatchError.different(names)
    if _HAS_STATE in outcomes:
        raise DividedBatchError.has_state(names)
    if rows is None or _FAILED in outcomes:
        if isinstance(failure, torch.OutOfMemoryError):
            raise failure
        return None
    own = {id(x) for chain in tensors[part] for x in chain}
    others = {id(x): x for chain in tensors for x in chain if x.requires_grad and id(x) not in own}
    return shared_rows(rows, len(names), list(others.values()), group)
