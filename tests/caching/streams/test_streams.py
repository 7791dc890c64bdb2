"""A kept value that is read on another stream is waited for, once for each stream."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.torch_internals import streams
from paramdesc.torch_internals.tensors import memory_of
from tests.caching.streams.device import Device, layer_with
from tests.helpers import Exp, chain_of, original_of


def test_the_stream_of_the_evaluation_never_waits(device: Device) -> None:
    layer = layer_with()
    with P.cached(layer), device.on(3):
        assert layer.weight is layer.weight is layer.weight
    assert device.waits == device.held == []


def test_another_stream_waits_once_and_keeps_the_memory(device: Device) -> None:
    layer = layer_with()
    with P.cached(layer) as scope:
        with device.on(3):
            value = layer.weight
        for stream in (4, 4, 3, 0, 4, 0):
            with device.on(stream):
                assert layer.weight is value
    assert device.waits == [(4, 3), (0, 3)]
    assert device.held == [(4, value.data_ptr()), (0, value.data_ptr())]
    assert (scope.misses, scope.hits) == (1, 6)


def test_a_fresh_value_has_an_event_of_its_own(device: Device) -> None:
    layer = layer_with()
    with P.cached(layer):
        with device.on(3):
            layer.weight  # noqa: B018
        with device.on(4), torch.no_grad():
            original_of(layer).add_(1)
            assert layer.weight is layer.weight
        with device.on(3), torch.no_grad():
            layer.weight  # noqa: B018
    assert device.waits[-1] == (3, 4)


@pytest.mark.parametrize("way", ["persistent", "automatic"])
def test_threads_with_streams_of_their_own_wait(device: Device, way: str) -> None:
    model = nn.Sequential(layer_with(Exp())).eval()
    Exp.evaluations = 0
    kept = P.cached(model, persistent=True)
    if way == "automatic":
        P.auto_cache(model)

    def answer() -> None:
        with torch.no_grad():
            if way == "automatic":
                model(torch.ones(3))
            else:
                with kept:
                    model(torch.ones(3))

    for stream in (1, 2, 2, 3):
        with device.on(stream):
            thread = threading.Thread(target=answer)
            thread.start()
            thread.join()
    assert Exp.evaluations == 1
    assert device.waits == [(2, 1), (3, 1)]


def test_a_value_that_is_served_without_gradients_is_waited_for(device: Device) -> None:
    layer = layer_with()
    with P.cached(layer, deferred=True):
        layer.weight  # noqa: B018
        with device.on(4), torch.no_grad():
            assert not layer.weight.requires_grad
    assert device.waits == [(4, 0)]


def test_a_value_inside_of_an_evaluation_is_waited_for(device: Device) -> None:
    outer = layer_with()
    P.register_parametrization(chain_of(outer), "original", Exp())
    inner = chain_of(outer)
    with P.cached(), torch.no_grad():
        with device.on(3):
            inner.original  # noqa: B018
        with device.on(4):
            outer.weight  # noqa: B018
    assert device.waits == [(4, 3)]


def test_compiled_code_waits(device: Device, compiler: None) -> None:
    model = nn.Sequential(layer_with()).eval()
    run = torch.compile(model, backend="eager")
    with torch.no_grad(), P.cached(model):
        with device.on(3):
            expected = model(torch.ones(3))
        with device.on(4):
            assert torch.equal(run(torch.ones(3)), expected)
    assert device.waits == [(4, 3)]


def test_contents_are_compared_after_the_wait(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = layer_with().eval()
    kept = P.cached(layer, persistent=True, check_contents=True)
    order: list[str] = []
    equal, wait = torch.equal, device.wait

    def compare(a: Tensor, b: Tensor) -> bool:
        order.append("compare")
        return equal(a, b)

    def note(*args: Any) -> None:
        order.append("wait")
        wait(*args)

    monkeypatch.setattr(torch, "equal", compare)
    monkeypatch.setattr(device, "wait", note)
    with torch.no_grad():
        for stream in (3, 4):
            with device.on(stream), kept:
                layer.weight  # noqa: B018
    assert order[:2] == ["wait", "compare"]


def test_deferred_gradients_are_summed_across_streams(device: Device) -> None:
    layer, plain = layer_with(), layer_with()
    plain.load_state_dict(layer.state_dict())
    for _ in range(3):
        plain.weight.square().sum().backward()
    with P.cached(layer, deferred=True):
        for stream in (3, 4, 4):
            with device.on(stream):
                layer.weight.square().sum().backward()
        before = list(device.waits)
    # the value on 4; the sum of 3 on 4; the sum of 4 where the scope ends
    assert before == [(4, 3), (4, 3)]
    assert device.waits == [*before, (0, 4)]
    torch.testing.assert_close(original_of(layer).grad, original_of(plain).grad)


def test_a_device_without_streams_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_with()
    with P.cached(layer) as scope:
        layer.weight  # noqa: B018
        (entry,) = scope.entries.values()
    assert entry.why_stale.__name__ == "why_stale"
    assert entry.why_stale.__qualname__.startswith("make_check.")


def test_what_torch_calls_for_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls on the module of a device, in the order in which they must come."""
    calls: list[Any] = []

    class Stream:
        stream_id = 5

        def wait_event(self, event: Any) -> None:
            calls.append(("wait", event))

    class Module:
        stream = Stream()

        class Event:
            def record(self, stream: Any) -> None:
                calls.append(("record", stream))

        def current_stream(self, device: torch.device) -> Stream:
            return self.stream

        def is_available(self) -> bool:
            return True

    module: Any = Module()
    kind, device = streams.Streams("new", module), torch.device("cpu")
    assert kind.current_on(device)() == 5
    kind.raw = {None: 0, 2: 6}.__getitem__
    assert kind.current_on(torch.device("cuda", 2))() == 6
    event = kind.record(device)
    assert isinstance(event, Module.Event)
    value = torch.ones(2, requires_grad=True)
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "record_stream", lambda x, stream: calls.append((x, stream)))
        kind.wait(device, event, [value])
    assert calls[:2] == [("record", module.stream), ("wait", event)]
    held, stream = calls[2]
    assert held.data_ptr() == value.data_ptr()
    assert stream is module.stream
    assert value._version == 0
    monkeypatch.setattr(torch, "new", module, raising=False)
    monkeypatch.setattr(streams, "KINDS", {})
    found = streams.streams_of("new")
    assert found is not None
    assert found.module is module
    assert streams.streams_of("new") is found


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_the_memory_of_every_kind_of_tensor_is_found() -> None:
    dense = torch.eye(2)
    assert memory_of(dense) == [dense]
    assert memory_of(torch.empty(2, device="meta")) == []
    for layout, count in ((torch.sparse_coo, 2), (torch.sparse_csr, 3), (torch.sparse_csc, 3)):
        assert len(memory_of(dense.to_sparse(layout=layout))) == count
    seen = []

    def look(x: Tensor) -> Tensor:
        seen.extend(memory_of(x))
        return x.sum()

    torch.func.vmap(torch.func.grad(look))(dense)
    assert [x.data_ptr() for x in seen] == [dense.data_ptr()]
