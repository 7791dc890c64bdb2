"""A persistent scope in several threads and tasks."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import paramdesc as P
from paramdesc.caching.active import active_scopes
from tests.caching.persistent.layers import exponential, read_in
from tests.caching.threads import THREADS, TIMEOUT, in_threads
from tests.helpers import original_of


@pytest.mark.parametrize("entered", ["by each thread", "by one for all"])
def test_one_thread_evaluates_and_all_get_its_value(entered: str) -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    second = threading.Event()

    def wait_for_a_second_one(*_: Any) -> None:
        if parametrization.calls.count:
            second.set()
        parametrization.calls.count += 1
        second.wait(0.3)  # it never comes

    parametrization.register_forward_pre_hook(wait_for_a_second_one)

    @torch.no_grad()
    def read() -> Any:
        return read_in(persistent, layer)

    first, *others = in_threads(read)
    assert all(value is first for value in others)
    assert not second.is_set()


def test_threads_do_not_see_a_scope_that_they_have_not_entered() -> None:
    layer, _ = exponential()
    with torch.no_grad(), P.cached(layer, persistent=True):
        first = layer.weight

        @torch.no_grad()
        def read() -> Any:
            return layer.weight

        values = in_threads(read)
    assert len({id(value) for value in (first, *values)}) == THREADS + 1


def test_threads_see_a_change_that_one_makes_between_their_reads() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    barrier = threading.Barrier(THREADS)

    @torch.no_grad()
    def work() -> list[Tensor]:
        found = []
        for _ in range(5):
            found.append(read_in(persistent, layer))
            if barrier.wait(TIMEOUT) == 0:
                original_of(layer).add_(1)
            barrier.wait(TIMEOUT)
        return found

    first, *others = in_threads(work)
    for step in range(5):
        assert all(values[step] is first[step] for values in others)
    for before, after in pairwise(first):
        torch.testing.assert_close(after, before * torch.e)
    assert parametrization.calls.count == 5


def test_an_error_in_one_thread_does_not_stop_the_others() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)

    def fail_at_first(*_: Any) -> None:
        parametrization.calls.count += 1
        if parametrization.calls.count == 1:
            raise ArithmeticError

    parametrization.register_forward_pre_hook(fail_at_first)

    @torch.no_grad()
    def read() -> Any:
        return read_in(persistent, layer)

    results = in_threads(read, ArithmeticError)
    values = [value for value in results if isinstance(value, Tensor)]
    assert len(values) == THREADS - 1
    assert all(value is values[0] for value in values)


def test_threads_with_gradients_have_graphs_of_their_own() -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)

    def train() -> Any:
        with persistent:
            first = layer.weight
            assert layer.weight is first
            (gradient,) = torch.autograd.grad(first.sum(), original_of(layer))
            return first, gradient

    results = in_threads(train)
    assert len({id(value) for value, _ in results}) == THREADS
    for _, gradient in results:
        torch.testing.assert_close(gradient, original_of(layer).detach().exp())


def test_tasks_share_values_but_not_the_scope() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    values: list[Any] = []

    async def use(number: int) -> None:
        for _ in range(3):
            with persistent:
                values.append(layer.weight)
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                    assert layer.weight is values[0]
            assert active_scopes() == ()
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(use(number) for number in range(50)))

    with torch.no_grad():
        asyncio.run(main())
    assert all(value is values[0] for value in values)
    assert parametrization.calls.count == 1


def test_a_scope_may_end_in_another_order_than_threads_have_entered_it() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    entered, leave = threading.Event(), threading.Event()

    @torch.no_grad()
    def stay() -> Any:
        with persistent:
            entered.set()
            assert leave.wait(TIMEOUT)
            return layer.weight

    with ThreadPoolExecutor(1) as pool, torch.no_grad():
        with persistent:
            future = pool.submit(stay)
            assert entered.wait(TIMEOUT)
            first = layer.weight
        leave.set()
        assert future.result(TIMEOUT) is first
    assert parametrization.calls.count == 1
