"""Peak memory of a recurrent cell with each cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations as theirs
from torch.nn.utils import parametrize
from torch.profiler import ProfilerActivity, profile

from paramdesc import cached
from paramdesc import parametrizations as ours
from tests.benchmarks.caches import ways
from tests.benchmarks.caches.accumulating import truncated
from tests.benchmarks.caches.models import Recurrent, Step, automatic, recurrent
from tests.benchmarks.table import Goal, Table

BY_HAND = "by hand, evaluated once"
SAME_MAP = "torch, cached, with paramdesc's parametrization"


def peak(function: Callable[[], object]) -> int:
    """The largest number of bytes that tensors hold at one time which `function` has made.

    It must free no other ones.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    results: Any = profiler.profiler
    events = below(results.kineto_results.experimental_event_tree())
    held = [0]
    for event in sorted(events, key=lambda event: int(event.start_time_ns)):
        if event.tag == torch._C._profiler._EventType.Allocation:
            held.append(held[-1] + event.extra_fields.alloc_size)
    assert min(held) == 0
    return max(held)


def below(roots: Sequence[Any]) -> list[Any]:
    """All events of these trees."""
    found = list(roots)
    for event in found:  # it grows
        found += event.children
    return found


def known_case() -> None:
    """Three tensors of 4096 bytes, of which two live at one time."""
    first = torch.ones(1024)
    second = first + first
    del first
    second.mul(second)


def peaks(size: int, length: int) -> Table:
    assert peak(known_case) == 2 * 4096
    inputs, state = torch.randn(1, length, 32, 1), torch.zeros(32, size)
    mine, peer, mixed = recurrent(size, ours), recurrent(size, theirs), Recurrent(size)
    parametrize.register_parametrization(mixed.cell, "kernel", ours.TorchOrthogonal("matrix_exp"))
    mine_too = automatic(recurrent(size, ours))
    steps: dict[str, tuple[nn.Module, Step]] = {
        BY_HAND: (
            mine,
            lambda: mine(inputs[0], state, mine.cell.kernel).square().mean().backward(),
        ),
        ways.CACHED: (mine, truncated(mine, inputs, state, partial(cached, mine))),
        ways.DEFERRED: (mine, truncated(mine, inputs, state, partial(cached, mine, deferred=True))),
        ways.AUTO: (mine_too, truncated(mine_too, inputs, state)),
        SAME_MAP: (mixed, truncated(mixed, inputs, state, parametrize.cached)),
        ways.TORCH_CACHED: (peer, truncated(peer, inputs, state, parametrize.cached)),
        ways.UNCACHED: (mine, truncated(mine, inputs, state)),
        ways.TORCH: (peer, truncated(peer, inputs, state)),
    }
    found = {}
    for name, (model, step) in steps.items():
        model.zero_grad()  # nothing of another case may be freed while it is measured
        found[name] = peak(step)
    return Table(
        f"Peak memory of {length} recurrent steps",
        f"The forward and backward pass of a cell with an orthogonal {size} x {size} weight over "
        f"{length} steps with a batch of 32. The table shows the largest amount of memory that "
        "tensors hold at one time, including gradients, but not models and inputs. It is counted "
        "by torch's profiler.",
        ("times handwritten", "MiB"),
        {name: (size / found[BY_HAND], size / 2**20) for name, size in found.items()},
        [
            Goal(
                f"{name}, in the memory of torch's cached,",
                1,
                found[name] / found[ways.TORCH_CACHED],
            )
            for name in (ways.CACHED, ways.DEFERRED, ways.AUTO)
        ],
    )
