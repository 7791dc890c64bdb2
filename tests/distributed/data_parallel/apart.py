"""Processes that divide a batch, and do not do the same.

Each case runs in groups of two. The first process of a group does something else than the second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import paramdesc as P
from paramdesc.parametrizations import Sphere, orthogonal

__all__ = ["CASES", "divided_apart"]

INPUTS = torch.ones(2, 4)


def four() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(*(orthogonal(nn.Linear(4, 4)) for _ in range(4)))


def unreached(is_first: bool, group: Any, **options: Any) -> None:
    """The loss of one process does not reach any value."""
    model = four()
    with P.cached(model, batched=True, process_group=group, **options):
        output = model(INPUTS)
        if not is_first:
            output.sum().backward()


def unreached_deferred(is_first: bool, group: Any) -> None:
    unreached(is_first, group, deferred=True)


def raised_after_reading(is_first: bool, group: Any) -> None:
    """One process leaves a block by an exception, and goes on with the next one."""
    model = four()
    for step in range(2):
        with suppress(ArithmeticError), P.cached(model, batched=True, process_group=group):
            output = model(INPUTS)
            if is_first and step == 0:
                raise ArithmeticError
            output.sum().backward()


def other_order_of_gradients(is_first: bool, group: Any) -> None:
    """Two batches of the same size, whose gradients are computed in another order."""
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
    for number, layer in enumerate(model):
        P.register_parametrization(layer, "weight", Sphere()) if number < 2 else orthogonal(layer)
    with P.cached(model, batched=True, process_group=group):
        weights: list[Any] = [model[0].weight, model[2].weight]
        for weight in weights[::-1] if is_first else weights:
            weight.sum().backward()


def without_gradients(is_first: bool, group: Any) -> None:
    model = four()
    gradients = torch.no_grad() if is_first else nullcontext()
    with P.cached(model, batched=True, process_group=group), gradients:
        model(INPUTS)


def more_reads(is_first: bool, group: Any) -> None:
    """One process reads a second batch, and the other one leaves the block."""
    model: Any = nn.Sequential(four(), *(nn.Linear(4, 4) for _ in range(2)))
    for layer in model[1:]:
        P.register_parametrization(layer, "weight", Sphere())
    with P.cached(model, batched=True, process_group=group):
        model[0](INPUTS)
        if not is_first:
            model(INPUTS)


def never_reads(is_first: bool, group: Any) -> None:
    """One process reads, and the other one does something that takes longer than the timeout."""
    untyped: Any = distributed
    groups = [untyped.new_group(x, timeout=timedelta(seconds=1)) for x in ([0, 1], [2, 3])]
    brief = groups[distributed.get_rank() // 2]
    model = four()
    with P.cached(model, batched=True, process_group=brief):
        if is_first:
            time.sleep(3)
        else:
            model(INPUTS)


CASES: dict[str, Callable[[bool, Any], None]] = {
    "unreached": unreached,
    "unreached, deferred": unreached_deferred,
    "raised after reading": raised_after_reading,
    "other order of gradients": other_order_of_gradients,
    "without gradients": without_gradients,
    "more reads": more_reads,
    "never reads": never_reads,
}


def outcome(case: Callable[[bool, Any], None], is_first: bool, group: Any) -> str:
    try:
        case(is_first, group)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


class Optional(nn.Module):
    """A model whose parametrized part is used or not."""

    def __init__(self) -> None:
        super().__init__()
        self.part = four()
        self.rest = nn.Linear(4, 4)
        self.is_used = True

    def forward(self, inputs: Tensor) -> Tensor:
        values: Tensor = self.part(inputs)  # read in all processes
        rest: Tensor = self.rest(inputs)
        return rest + values if self.is_used else rest


def unused_parameters(is_first: bool, group: Any) -> list[Tensor]:
    """The gradients if one process does not use the values, with and without a group."""
    found = []
    for options in ({}, {"batched": True, "process_group": group}):
        model = Optional()
        parallel = DistributedDataParallel(model, find_unused_parameters=True)
        model.is_used = not is_first
        with P.cached(parallel, **options):
            parallel(INPUTS).sum().backward()
        found.append(torch.cat([x.grad.flatten() for x in model.part.parameters()]))
    return found


def fewer_inputs(is_first: bool, group: Any) -> list[Tensor]:
    """The gradients after the last step if one process has fewer inputs."""
    found = []
    for options in ({}, {"batched": True, "process_group": group}):
        model = four()
        parallel = DistributedDataParallel(model)
        with parallel.join():
            for _ in range(1 if is_first else 3):
                with P.cached(parallel, **options):
                    parallel(INPUTS).sum().backward()
        found.append(torch.cat([x.grad.flatten() for x in model.parameters()]))
    return found


def divided_apart(rank: int, group: Any) -> dict[str, Any]:
    """What is raised in each case, and the gradients where processes may do different things."""
    is_first = rank % 2 == 0
    found: dict[str, Any] = {name: outcome(case, is_first, group) for name, case in CASES.items()}
    found["unused parameters"] = unused_parameters(is_first, group)
    found["fewer inputs"] = fewer_inputs(is_first, group)
    return found
