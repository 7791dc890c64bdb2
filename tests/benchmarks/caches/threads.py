"""Caches in a model that several threads call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from threading import Barrier, Thread
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as theirs

from paramdesc import cached
from paramdesc import parametrizations as ours
from tests.benchmarks.caches import ways
from tests.benchmarks.caches.models import Scope, automatic, layer
from tests.benchmarks.table import Goal, Table
from tests.benchmarks.timing import Clock, Series, in_turns

THREADS = 8


def concurrently(
    model: nn.Module,
    x: Tensor,
    requests: int,
    scope: Scope = nullcontext,
    request: Scope | None = None,
) -> Clock:
    """A clock on the wall for one of that many requests, which all threads share.

    Each of them enters `scope` once, and `request` for each request.
    """
    model.eval()
    share = max(1, requests // THREADS)

    def clock() -> float:
        barrier = Barrier(THREADS + 1)

        def serve() -> None:
            with torch.inference_mode(), scope():
                barrier.wait()
                for _ in range(share):
                    if request is None:
                        model(x)
                    else:
                        with request():
                            model(x)

        workers = [Thread(target=serve) for _ in range(THREADS)]
        for worker in workers:
            worker.start()
        barrier.wait()
        start = perf_counter()
        for worker in workers:
            worker.join()
        return (perf_counter() - start) / (share * THREADS)

    return clock


def threads(size: int, batches: Sequence[int], quick: bool) -> Table:
    found = {batch: serve_in_threads(size, batch, quick) for batch in batches}
    names = list(next(iter(found.values())).seconds)
    columns = [what for batch in batches for what in (f"batch {batch}, fraction", "per second")]
    return Table(
        "Eight threads that serve one model",
        f"The throughput of {THREADS} Python threads that call one `nn.Linear` of size {size} on "
        f"{os.cpu_count()} cores, as a fraction of the throughput of a plain model and in requests "
        "per second.",
        tuple(columns),
        {
            name: tuple(
                figure
                for series in found.values()
                for figure in (1 / series.ratio(name, ways.PLAIN), 1 / series.median(name))
            )
            for name in names
        },
        [
            Goal(
                f"the time of {name}, batch {batch}, in plain,",
                1.176,
                series.ratio(name, ways.PLAIN),
            )
            for batch, series in found.items()
            for name in (ways.ONCE, ways.PER_REQUEST, ways.AUTO)
        ],
    )


def serve_in_threads(size: int, batch: int, quick: bool) -> Series:
    few, many = (THREADS, THREADS) if quick else (2 * THREADS, 250 * THREADS)
    x, mine = torch.randn(batch, size), layer(size, ours)
    kept, per_request = (cached(mine, persistent=True) for _ in range(2))
    return in_turns(
        {
            ways.PLAIN: concurrently(layer(size), x, many),
            ways.ONCE: concurrently(mine, x, many, lambda: kept),
            ways.PER_REQUEST: concurrently(mine, x, many, request=lambda: per_request),
            ways.AUTO: concurrently(automatic(layer(size, ours)), x, many),
            ways.UNCACHED: concurrently(mine, x, few),
            ways.TORCH: concurrently(layer(size, theirs), x, few),
        },
        1 if quick else 15,
    )
