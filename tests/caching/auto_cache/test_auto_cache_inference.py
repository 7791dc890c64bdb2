"""`auto_cache` in inference: one evaluation, until something changes."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from tests.caching.auto_cache.models import CHANGES, INPUT, gradients, plain, twice
from tests.caching.threads import TIMEOUT, in_threads
from tests.helpers import Double, Exp, chain_of, linear

# inference


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_in_inference_a_value_is_evaluated_once(mode: Callable[[], Any]) -> None:
    model = twice().eval()
    with mode():
        expected = plain(model)(INPUT)
        Exp.evaluations = 0
        for _ in range(3):
            torch.testing.assert_close(model(INPUT), expected)
        assert model.layer.weight is model.layer.weight
    assert Exp.evaluations == 1


def test_what_is_frozen_is_evaluated_once_in_any_mode() -> None:
    model = twice().eval().requires_grad_(False)
    for _ in range(3):
        model(INPUT)
    assert Exp.evaluations == 1


def test_the_scope_tells_of_the_model() -> None:
    model, other = twice().eval(), twice().eval()
    scope = P.auto_cache(model)
    assert (scope.hits, scope.misses, len(scope)) == (0, 0, 0)
    with torch.no_grad():
        model(INPUT)
        other(INPUT)
    assert (scope.hits, scope.misses, len(scope)) == (1, 1, 1)
    assert chain_of(model.layer) in scope
    assert chain_of(other.layer) not in scope


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed_without_any_scope(name: str, mode: Callable[[], Any]) -> None:
    model = twice().eval()
    with mode():
        before = model.layer.weight
        assert model.layer.weight is before
    with torch.no_grad():
        CHANGES[name](model)
    with mode():
        assert model.layer.weight is not before
        torch.testing.assert_close(model.layer.weight, chain_of(model.layer)(), rtol=0, atol=0)


def test_a_model_that_trains_and_predicts_in_turn_predicts_with_what_it_learned() -> None:
    model = twice()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model.train()(INPUT).square().sum().backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            torch.testing.assert_close(model(INPUT), plain(model)(INPUT), rtol=0, atol=0)


def test_in_inference_threads_share_one_evaluation() -> None:
    model = twice().eval()
    second = threading.Event()
    entered: list[None] = []

    def wait_for_a_second_one(*_: Any) -> None:
        entered.append(None)
        if len(entered) > 1:
            second.set()
        second.wait(0.3)  # it never comes

    chain_of(model.layer)[0].register_forward_pre_hook(wait_for_a_second_one)

    @torch.no_grad()
    def predict() -> Any:
        model(INPUT)
        return model.layer.weight

    first, *others = in_threads(predict)
    assert all(value is first for value in others)
    assert not second.is_set()


def test_in_training_each_thread_has_its_own_passes() -> None:
    model = twice()
    twin = plain(model)
    expected = gradients(twin, twin(INPUT))
    results = in_threads(lambda: gradients(model, model(INPUT)))
    for result in results:
        torch.testing.assert_close(result, expected)


@pytest.fixture
def many_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("many_switches")
def test_models_may_come_and_go_in_one_thread_while_another_trains() -> None:
    models = [twice() for _ in range(200)]
    for model in models:
        model(INPUT)
    scope, ended = P.auto_cache(models[0]), threading.Event()

    def make_others() -> None:
        try:
            for _ in range(300):
                twice()(INPUT)
        finally:
            ended.set()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(make_others)
        while not ended.is_set():
            models[0](INPUT)
            assert len(scope.report()) == 1
        future.result(TIMEOUT)


def test_in_inference_tasks_share_one_evaluation() -> None:
    model = twice().eval()
    values: list[Any] = []

    async def predict() -> None:
        for _ in range(3):
            model(INPUT)
            values.append(model.layer.weight)
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(predict() for _ in range(20)))

    with torch.no_grad():
        asyncio.run(main())
    assert all(value is values[0] for value in values)
    assert Exp.evaluations == 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
def test_nn_init_takes_effect(training: bool, gradients: bool) -> None:
    layer = linear(Double())
    P.auto_cache(layer.train(training))
    with torch.set_grad_enabled(gradients):
        nn.init.constant_(layer.weight, 3.0)
        assert torch.equal(layer.weight, torch.full((3, 3), 3.0))
