"""Scopes in several threads and tasks."""

from __future__ import annotations

import asyncio
import threading

import torch
from torch import Tensor, nn

import paramdesc as P
from tests.helpers import counting, original_of


def test_a_thread_does_not_see_the_scopes_of_another() -> None:
    linear, _ = counting()
    seen: list[bool] = []
    with P.cached():
        kept = linear.weight
        thread = threading.Thread(target=lambda: seen.append(linear.weight is kept))
        thread.start()
        thread.join(timeout=60)
    assert seen == [False]


def train(model: nn.Linear, steps: int, lock: threading.Lock) -> None:
    """Steps whose sum does not depend on their order: the gradient of exp(w) times exp(-w)."""
    original = original_of(model)
    for _ in range(steps):
        with P.cached(model):
            with lock:  # read both at the same weight
                first, second, rate = model.weight, model.weight, (-original.detach()).exp()
            assert first is second
            (gradient,) = torch.autograd.grad((first + second).sum() / 2, original)
            with lock, torch.no_grad():
                original.add_((gradient * rate).round(), alpha=2.0**-12)
                assert model.weight is not first


def test_eight_threads_train_one_model_as_one_thread_does() -> None:
    errors: list[BaseException] = []
    results = []
    for workers in (8, 1):
        torch.manual_seed(0)
        model = P.register_parametrization(nn.Linear(4, 4), "weight", torch.exp)
        with torch.no_grad():
            original_of(model).mul_(2**10).round_().div_(2**10)  # sums of these are exact
        lock = threading.Lock()

        def work(
            model: nn.Linear = model, lock: threading.Lock = lock, n: int = 2400 // workers
        ) -> None:
            try:
                train(model, n, lock)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=300)
        assert not errors
        results.append(original_of(model).detach())
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_tasks_never_see_one_anothers_values() -> None:
    linear, _ = counting()
    owners: dict[int, int] = {}
    kept: list[Tensor] = []  # so that no identity is given twice

    async def use(number: int) -> None:
        for _ in range(3):
            with P.cached(linear):
                first = linear.weight
                kept.append(first)
                assert owners.setdefault(id(first), number) == number
                for pause in range(number % 4):
                    await asyncio.sleep(0)
                    with P.cached():
                        await asyncio.sleep(0)
                        assert linear.weight is first, pause
            assert linear.weight is not first
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(use(number) for number in range(200)))

    asyncio.run(main())
    assert len(owners) == 600


def test_a_task_shares_the_scope_it_is_started_in_while_that_lasts() -> None:
    linear, _ = counting()

    async def read() -> Tensor:
        return linear.weight

    async def read_later(event: asyncio.Event) -> bool:
        await event.wait()
        return linear.weight is linear.weight

    async def main() -> None:
        event = asyncio.Event()
        with P.cached() as scope:
            kept = linear.weight
            assert await asyncio.create_task(read()) is kept
            late = asyncio.create_task(read_later(event))
            await asyncio.sleep(0)
        event.set()
        assert not await late
        assert len(scope) == 0

    asyncio.run(main())


def test_a_decorated_coroutine_keeps_its_scope_while_it_waits() -> None:
    linear, _ = counting()

    @P.cached()
    async def use() -> Tensor:
        first = linear.weight
        await asyncio.sleep(0)
        assert linear.weight is first
        return first

    async def main() -> None:
        first, second = await asyncio.gather(use(), use())
        assert first is not second

    asyncio.run(main())
