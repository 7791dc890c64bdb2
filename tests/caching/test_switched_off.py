"""`auto_cache(model, False)` while other threads are inside of calls of the model."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.caching.active import active_scopes
from paramdesc.caching.automatic import HOOK
from tests.helpers import linear


class Model(nn.Module):
    """Its call stops inside until `go` is set."""

    def __init__(self, end: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = linear()
        self.end = end
        self.inside, self.go = threading.Semaphore(0), threading.Event()
        self.values: list[weakref.ref[Tensor]] = []

    def forward(self, x: Tensor) -> Any:
        weight = self.layer.weight
        self.values.append(weakref.ref(weight))
        y = (x @ weight).detach()
        del weight
        self.inside.release()
        assert self.go.wait(60)
        return self.end(y)


def fail(y: Tensor) -> None:
    raise ValueError("the model fails")


def hooks_of(model: nn.Module) -> list[Any]:
    kinds: tuple[Any, ...] = (
        model._forward_pre_hooks,
        model._forward_hooks,
        model._forward_hooks_always_called,
    )
    return [kind for kind in kinds if HOOK in kind]


@pytest.fixture
def threads() -> Iterator[list[threading.Thread]]:
    started: list[threading.Thread] = []
    yield started
    for thread in started:
        thread.join(60)


ENDS: dict[str, Callable[[Tensor], Any]] = {"output": lambda y: y, "none": lambda _: None}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("end", [*ENDS, "error"])
def test_the_calls_of_other_threads_end_their_scopes(
    threads: list[threading.Thread], end: str, count: int
) -> None:
    model = Model(ENDS.get(end, fail))
    P.auto_cache(model)
    left: list[Any] = []

    def call() -> None:
        with suppress(ValueError):
            model(torch.ones(1, 3))
        left.append(active_scopes())

    threads += [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for _ in range(count):
        assert model.inside.acquire(timeout=60)
    P.auto_cache(model, enabled=False)
    assert len(hooks_of(model)) == 2
    model.go.set()
    for thread in threads:
        thread.join(60)
    assert left == [()] * count
    assert [value() for value in model.values] == [None] * count
    model.end = ENDS["output"]
    model(torch.ones(1, 3))
    assert hooks_of(model) == []
    assert active_scopes() == ()


def test_the_last_of_these_calls_takes_the_hook_away(threads: list[threading.Thread]) -> None:
    model = Model(ENDS["output"])
    P.auto_cache(model)
    threads.append(threading.Thread(target=model, args=[torch.ones(1, 3)]))
    threads[0].start()
    assert model.inside.acquire(timeout=60)
    P.auto_cache(model, enabled=False)
    assert hooks_of(model) != []
    model.go.set()
    threads[0].join(60)
    assert hooks_of(model) == []


def test_without_such_calls_no_hook_is_left() -> None:
    model = Model(ENDS["output"])
    model.go.set()
    P.auto_cache(model)
    model(torch.ones(1, 3))
    P.auto_cache(model, enabled=False)
    assert hooks_of(model) == []


def test_it_is_switched_on_again_meanwhile(threads: list[threading.Thread]) -> None:
    model = Model(ENDS["output"])
    P.auto_cache(model)
    threads.append(threading.Thread(target=model, args=[torch.ones(1, 3)]))
    threads[0].start()
    assert model.inside.acquire(timeout=60)
    P.auto_cache(model, enabled=False)
    scope = P.auto_cache(model)
    model.go.set()
    threads[0].join(60)
    assert len(hooks_of(model)) == 3
    with torch.no_grad():
        model.eval()(torch.ones(1, 3))
        model(torch.ones(1, 3))
    assert scope.hits == 1
