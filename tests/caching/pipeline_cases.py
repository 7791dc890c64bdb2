"""Pipelines of two processes with and without deferred gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.pipelining.schedules import (
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleLoopedBFS,
)

import paramdesc as P
from paramdesc.errors import DeferredGradientError
from paramdesc.parametrizations import orthogonal

MICRO_BATCHES = 4

SINGLE: dict[str, tuple[Any, dict[str, Any]]] = {
    "GPipe": (ScheduleGPipe, {}),
    "1F1B": (Schedule1F1B, {}),
    "sum of the losses": (Schedule1F1B, {"scale_grads": False}),
}
SEVERAL: dict[str, tuple[Any, dict[str, Any]]] = {
    "interleaved": (ScheduleInterleaved1F1B, {}),
    "looped": (ScheduleLoopedBFS, {}),
}
SPLIT: dict[str, tuple[Any, dict[str, Any]]] = {"zero bubble": (ScheduleInterleavedZeroBubble, {})}


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean()


def part(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(orthogonal(nn.Linear(8, 8)), nn.Tanh(), orthogonal(nn.Linear(8, 8)))


def schedule_of(kind: Any, options: dict[str, Any], rank: int, several: bool) -> tuple[Any, Any]:
    device = torch.device("cpu")
    places = [rank, rank + 2] if several else [rank]
    parts = [part(place) for place in places]
    count = 4 if several else 2
    stages = [
        PipelineStage(part, place, count, device) for part, place in zip(parts, places, strict=True)
    ]
    first: Any = stages if several else stages[0]
    return kind(first, MICRO_BATCHES, loss_fn=loss_of, **options), parts


def run(schedule: Any, rank: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randn(2, 8, 8, generator=generator)
    if rank == 0:
        schedule.step(inputs)
    else:
        schedule.step(target=targets, losses=[])


SCOPES: dict[str, Callable[[list[nn.Module]], Any]] = {
    "none": lambda parts: nullcontext(),
    "deferred": lambda parts: P.cached(parts, deferred=True),
    "cached": lambda parts: P.cached(parts),
    "batched": lambda parts: P.cached(parts, batched=True),
    "batched and deferred": lambda parts: P.cached(parts, batched=True, deferred=True),
    "persistent": lambda parts: P.cached(parts, persistent=True),
}


def gradients(rank: int, case: str, scope: str = "none", steps: int = 1) -> list[Tensor]:
    """The gradients after some steps of the pipeline in one scope."""
    several = case not in SINGLE
    kind, options = {**SINGLE, **SEVERAL, **SPLIT}[case]
    schedule, parts = schedule_of(kind, options, rank, several)
    with SCOPES[scope](parts):
        for seed in range(steps):
            run(schedule, rank, seed)
    found = [x.grad for part in parts for x in part.parameters()]
    return [torch.zeros(()) if x is None else x.clone() for x in found]


def reads(rank: int, case: str) -> tuple[int, int, list[Tensor]]:
    """How many reads an ordinary scope has answered and evaluated in a step of a pipeline, and
    the gradients of a backward pass in the same scope before and after it.
    """
    kind, options = SINGLE[case]
    schedule, (part,) = schedule_of(kind, options, rank, False)
    inputs = torch.ones(8, 8)
    with P.cached(part) as scope:
        part(inputs).sum().backward()
        run(schedule, rank, 0)
        part(inputs).sum().backward()
    return (
        scope.hits,
        scope.misses,
        [x.grad.clone() for x in part.parameters() if x.grad is not None],
    )


def refusal(rank: int, case: str) -> str:
    """What a schedule of split backward passes says, in both processes."""
    schedule, parts = schedule_of(*SPLIT[case], rank, True)
    try:
        with P.cached(parts, deferred=True):
            run(schedule, rank, 0)
    except DeferredGradientError as error:
        return str(error)
    return "nothing was refused"


def allowed_without_leaves(rank: int) -> bool:
    """A schedule of split backward passes runs where the scope covers other tensors."""
    schedule, _ = schedule_of(*SPLIT["zero bubble"], rank, True)
    with P.cached(part(9), deferred=True):
        run(schedule, rank, 0)
    return True


def work(rank: int) -> dict[str, Any]:
    """What one of two processes finds in all cases."""
    found: dict[str, Any] = {
        case: {
            scope: gradients(rank, case, scope)
            for scope in SCOPES
            if case not in SPLIT or "deferred" not in scope
        }
        for case in (*SINGLE, *SEVERAL, *SPLIT)
    }
    found["two steps in one scope"] = {scope: gradients(rank, "1F1B", scope, 2) for scope in SCOPES}
    found["reads"] = {case: reads(rank, case) for case in SINGLE}
    found["refusals"] = {case: refusal(rank, case) for case in SPLIT}
    found["allowed"] = allowed_without_leaves(rank)
    return found
