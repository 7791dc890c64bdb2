"""Deferred gradients from several threads and tasks."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import paramdesc as P
from tests.caching.deferred.comparing import assert_same_gradients, default_dtype
from tests.caching.deferred.counted import counted
from tests.caching.deferred.loops import accumulate, backward, batches, loss_of, trained
from tests.caching.deferred.models import layer, two_layers
from tests.helpers import original_of


def test_threads_in_copies_of_the_context_add_up() -> None:
    def loop(model: Any) -> None:
        start = threading.Barrier(4)

        def work(batch: Tensor) -> None:
            start.wait(timeout=60)
            backward(loss_of(model(batch)))

        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(work, batch))
            for batch in batches()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)

    for _ in range(5):
        with default_dtype(torch.float64):
            assert_same_gradients(
                trained(two_layers, loop, True), trained(two_layers, accumulate, False)
            )


def test_no_gradient_is_lost_when_threads_switch_often() -> None:
    """Each thread uses the same leaf, and adds its number 200 times."""
    linear = layer()
    start = threading.Barrier(4)
    with P.cached(linear, deferred=True):
        weight = linear.weight

        def work(number: int) -> None:
            start.wait(timeout=60)
            for _ in range(200):
                (weight * number).sum().backward()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
        with switching_often():
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=60)
    expected = layer()
    expected.load_state_dict(dict(linear.state_dict()))
    (expected.weight * 2000).sum().backward()
    assert_same_gradients(linear, expected)


@contextlib.contextmanager
def switching_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def test_a_gradient_that_its_function_writes_to_later_is_copied() -> None:
    linear, expected = layer(), layer()
    expected.load_state_dict(dict(linear.state_dict()))

    class Reusing(torch.autograd.Function):
        buffer = torch.empty(0)

        @staticmethod
        def forward(_ctx: Any, weight: Tensor) -> Tensor:
            return weight.sum()

        @staticmethod
        def backward(_ctx: Any, gradient: Tensor) -> Tensor:
            if not len(Reusing.buffer):
                Reusing.buffer = torch.empty_like(linear.weight)
            return Reusing.buffer.fill_(gradient.item())

    for model, scope in ((linear, True), (expected, False)):
        with P.cached(model, deferred=scope):
            Reusing.apply(model.weight).backward()  # type: ignore[no-untyped-call]
            (2 * Reusing.apply(model.weight)).backward()  # type: ignore[no-untyped-call]
    assert_same_gradients(linear, expected)


def test_a_thread_without_the_context_has_its_gradient_at_once() -> None:
    linear = layer()
    with P.cached(linear, deferred=True):
        thread = threading.Thread(target=accumulate, args=(linear,))
        thread.start()
        thread.join(timeout=60)
        assert original_of(linear).grad is not None


def test_tasks_started_inside_add_up() -> None:
    linear, passes = counted()
    expected = layer()
    expected.load_state_dict(dict(linear.state_dict()))  # of another map, on purpose
    accumulate(expected)

    async def work(batch: Tensor) -> None:
        await asyncio.sleep(0)
        output = linear(batch)
        await asyncio.sleep(0)
        backward(loss_of(output))

    async def main() -> None:
        with P.cached(linear, deferred=True):
            await asyncio.gather(*map(work, batches()))
            assert original_of(linear).grad is None

    asyncio.run(main())
    assert passes == {"forward": 1, "backward": 1}
    assert_same_gradients(linear, expected)
