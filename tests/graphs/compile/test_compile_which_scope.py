"""Which scope keeps the values of compiled code."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.caching.traced_scopes import TRACED
from tests.graphs.backend import READS_GRAD, Graphs
from tests.graphs.compile.models import INPUT
from tests.helpers import Exp, linear

pytestmark = READS_GRAD


def test_the_outermost_scope_keeps_the_values(graphs: Graphs) -> None:
    model = nn.Sequential(linear(Exp()), linear(Exp()))
    compiled = graphs.compile(model)
    with P.cached(model) as outer:
        compiled(INPUT)
        with P.cached() as inner, P.cached(model):
            compiled(INPUT)
        compiled(INPUT)
    assert graphs.evaluations == [0]
    assert (outer.misses, inner.misses, inner.hits) == (2, 0, 0)


def test_a_scope_of_one_part_evaluates_the_rest_in_the_graph(graphs: Graphs) -> None:
    model = nn.Sequential(linear(Exp()), linear(Exp()))
    compiled = graphs.compile(model)
    with P.cached(model[0]) as scope:
        for _ in range(3):
            torch.testing.assert_close(compiled(INPUT), model(INPUT))
    assert graphs.evaluations == [1]
    assert scope.misses == 1


def test_ever_other_scopes_do_not_use_up_what_torch_compiles(graphs: Graphs) -> None:
    model = nn.Sequential(*(linear(Exp()) for _ in range(4)))
    compiled = graphs.compile(model)
    for n in range(5):
        for parts in itertools.combinations(model, n):
            with P.cached(parts):
                torch.testing.assert_close(compiled(INPUT), model(INPUT))
    compiled(INPUT)
    assert len(graphs.evaluations) < 8


def test_an_eager_scope_is_outside_of_those_in_the_compiled_code(
    graphs: Graphs, layer: nn.Linear
) -> None:
    def run(x: Tensor) -> Any:
        with P.cached(layer):
            y = layer(layer(x))
        return layer(y)

    compiled = graphs.compile(run)
    for scope in (nullcontext(), P.cached(layer), P.cached([])):
        with scope:
            for _ in range(2):
                torch.testing.assert_close(compiled(INPUT / 9), run(INPUT / 9))
    assert graphs.evaluations == [2, 0, 2]


def test_each_thread_has_its_own_scopes(graphs: Graphs, layer: nn.Linear) -> None:
    compiled = graphs.compile(layer)
    expected = compiled(INPUT)
    with P.cached(layer):
        compiled(INPUT)
    start = threading.Barrier(3)

    def work(_: int) -> list[int]:
        start.wait()
        misses = []
        for _ in range(3):
            with P.cached(layer) as scope:
                for _ in range(10):
                    torch.testing.assert_close(compiled(INPUT), expected)
            misses.append(scope.misses)
            torch.testing.assert_close(compiled(INPUT), expected)
        return misses

    # threads that call code with two graphs make torch compile more of them now and then, for
    # plain modules too: it does not lock the list that it searches
    with torch._dynamo.config.patch(recompile_limit=64), ThreadPoolExecutor(3) as pool:
        for misses in pool.map(work, range(3)):
            assert max(misses) <= 1


def test_each_task_has_its_own_scopes(graphs: Graphs, layer: nn.Linear) -> None:
    compiled, expected = graphs.compile(layer), layer(INPUT)

    async def work(scope: Any) -> int:
        with scope as opened:
            for _ in range(5):
                torch.testing.assert_close(compiled(INPUT), expected)
                await asyncio.sleep(0)
        return 0 if opened is None else int(opened.misses)

    async def work_together() -> list[int]:
        scopes = P.cached(layer), nullcontext(), P.cached(layer)
        return await asyncio.gather(*map(work, scopes))

    assert asyncio.run(work_together()) == [1, 0, 1]


def test_a_scope_that_another_thread_ends_is_over_here_too(layer: nn.Linear) -> None:
    scope = P.cached(layer)
    # in a context of its own, which still lists the scope when the other thread has ended it
    contextvars.copy_context().run(scope.__enter__)
    assert TRACED.opened.any
    thread = threading.Thread(target=scope.__exit__)
    thread.start()
    thread.join()
    assert not TRACED.opened.any
