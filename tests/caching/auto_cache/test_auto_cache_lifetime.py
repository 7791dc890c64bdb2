"""What a model that caches by itself keeps alive."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.caching.active import active_scopes
from tests.caching.auto_cache.models import INPUT, Twice, twice
from tests.helpers import Double, chain_of, linear


class Remembering(Twice):
    """Refers to the value that it used last."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.seen: list[Any] = []

    def pause(self) -> None:
        self.seen[:] = [weakref.ref(self.layer.weight)]

    def is_alive(self) -> bool:
        return self.seen[0]() is not None


@pytest.mark.usefixtures("no_collector")
def test_after_a_pass_without_a_graph_the_value_is_gone() -> None:
    model = twice(Remembering)
    with torch.no_grad():
        model(INPUT)
    assert not model.is_alive()


@pytest.mark.usefixtures("no_collector")
def test_the_graph_holds_the_memory_until_the_backward_pass() -> None:
    memory: list[Any] = []

    class Watching(Twice):
        def pause(self) -> None:
            memory[:] = [weakref.ref(self.layer.weight.untyped_storage())]

    model = twice(Watching)
    loss = model(INPUT).sum()
    assert active_scopes() == ()
    assert memory[0]() is not None
    loss.backward()
    del loss
    assert memory[0]() is None
    assert len(P.auto_cache(model)) == 0


@pytest.mark.usefixtures("no_collector")
def test_an_outdated_value_is_freed_before_the_next_one_is_made() -> None:
    model = twice().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.no_grad():
        value = weakref.ref(model.layer.weight)
    model(INPUT).sum().backward()
    optimizer.step()
    alive: list[bool] = []
    handle = chain_of(model.layer)[0].register_forward_pre_hook(
        lambda *_: alive.append(value() is not None)
    )
    with torch.no_grad():
        model(INPUT)
    handle.remove()
    assert alive == [False]


@pytest.mark.usefixtures("no_collector")
def test_a_model_that_is_deleted_takes_its_values_along() -> None:
    model = twice().eval()
    with torch.no_grad():
        value = weakref.ref(model.layer.weight)
    module, chain = weakref.ref(model), weakref.ref(chain_of(model.layer))
    del model
    assert [reference() for reference in (module, chain, value)] == [None, None, None]


@pytest.mark.parametrize("is_written", [True, False])
def test_a_read_with_gradients_frees_an_outdated_value_and_keeps_a_current_one(
    is_written: bool,
) -> None:
    layer = linear(Double()).eval()
    told = P.auto_cache(layer)
    with torch.no_grad():
        value = weakref.ref(layer.weight)
        if is_written:
            layer.get_parameter("parametrizations.weight.original").add_(1)
    assert layer.weight.requires_grad
    assert (value() is None) == is_written
    assert len(told) == (0 if is_written else 1)
