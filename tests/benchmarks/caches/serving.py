"""Caches in a layer that answers requests."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as theirs
from torch.nn.utils import parametrize

from paramdesc import cached
from paramdesc import parametrizations as ours
from tests.benchmarks.caches import ways
from tests.benchmarks.caches.models import Scope, automatic, layer, with_geotorch
from tests.benchmarks.table import Goal, Table
from tests.benchmarks.timing import Clock, in_turns, statement


def served(
    model: nn.Module,
    x: Tensor,
    times: int,
    scope: Scope = nullcontext,
    request: Scope | None = None,
) -> Clock:
    """A clock for one of that many calls, in one scope, or each in a `request` of its own."""
    source = "model(x)" if request is None else "with request(): model(x)"
    calls = statement(source, times, model=model.eval(), x=x, request=request)

    def clock() -> float:
        with torch.inference_mode(), scope():
            model(x)
            return calls() / times

    return clock


def serving(size: int, batches: Sequence[int], quick: bool) -> Table:
    """One layer that answers requests."""
    found = {batch: serve(size, batch, quick) for batch in batches}
    names = list(next(iter(found.values())))
    goals = [
        Goal(f"{name}, batch {batches[-1]}, in plain calls,", 1.15, found[batches[-1]][name][0])
        for name in (ways.ONCE, ways.PER_REQUEST, ways.AUTO)
    ]
    plain = ", ".join(f"{found[batch][ways.PLAIN][1]:.3g}" for batch in batches)
    return Table(
        "Serving",
        f"The time of a call of one `nn.Linear` of size {size} in `torch.inference_mode()`, as a "
        "multiple of the time of a plain layer, for several batch sizes. A plain call takes "
        f"{plain} microseconds.",
        tuple(f"batch {batch}" for batch in batches),
        {name: tuple(found[batch][name][0] for batch in batches) for name in names},
        goals,
        [
            "The checks of paramdesc take the same time for every batch, so they matter more for a "
            "small batch.",
            "torch's cache, entered once, checks nothing. It returns the old weight after an "
            "assignment, `load_state_dict` or a conversion, and all threads share it. paramdesc "
            "checks its values at each read.",
        ],
    )


def serve(size: int, batch: int, quick: bool) -> dict[str, tuple[float, float]]:
    """By case, the time of a call in plain ones, and in microseconds."""
    x, (few, many) = torch.randn(batch, size), (1, 2) if quick else (4, 200)
    plain, mine, peer = layer(size), layer(size, ours), layer(size, theirs)
    kept, per_request = (cached(mine, persistent=True) for _ in range(2))
    slow = {
        ways.TORCH: served(peer, x, few),
        f"{ways.TORCH_CACHED} for each request": served(peer, x, few, request=parametrize.cached),
        **{
            name: served(model, x, few)
            for name, model in with_geotorch(partial(layer, size)).items()
        },
        ways.UNCACHED: served(mine, x, few),
        f"{ways.CACHED} for each request": served(mine, x, few, request=partial(cached, mine)),
    }
    fast = {
        f"{ways.TORCH_CACHED}, entered once": served(peer, x, many, parametrize.cached),
        ways.ONCE: served(mine, x, many, lambda: kept),
        ways.PER_REQUEST: served(mine, x, many, request=lambda: per_request),
        ways.AUTO: served(automatic(layer(size, ours)), x, many),
    }
    reference = {ways.PLAIN: served(plain, x, many)}
    found: dict[str, tuple[float, float]] = {}
    for cases, rounds in ((slow, 5), (fast, 31)):
        series = in_turns(reference | cases, 1 if quick else rounds)
        for name in reference | cases:
            found[name] = series.ratio(name, ways.PLAIN), series.median(name) * 1e6
    return found
