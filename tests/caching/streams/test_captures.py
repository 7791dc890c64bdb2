"""Values belong to the capture of a CUDA graph that they were made in, and replays are steps."""

from __future__ import annotations

import gc
from typing import Any
from weakref import ref

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.caching.record import Cause, Reason
from paramdesc.errors import DeferredGradientError
from paramdesc.parametrizations import SpectralNorm
from paramdesc.torch_internals import optimizers
from tests.caching.streams.device import Device, layer_with
from tests.helpers import Exp, original_of


def test_a_value_from_before_a_capture_is_not_used_in_it_and_vice_versa(device: Device) -> None:
    layer = layer_with()
    with P.cached(layer) as scope:
        before = layer.weight
        with device.capture():
            inside = layer.weight
            assert layer.weight is inside is not before
        after = layer.weight
        assert layer.weight is after
        assert after is not inside
    assert (scope.misses, scope.hits) == (3, 2)
    assert scope.report()["weight"].dropped == Cause(Reason.CAPTURE)
    assert device.waits == []


def test_each_capture_has_values_of_its_own(device: Device) -> None:
    layer = layer_with()
    with P.cached(layer):
        with device.capture():
            first = layer.weight
        with device.capture():
            assert layer.weight is not first


def test_streams_wait_for_each_other_in_a_capture(device: Device) -> None:
    layer = layer_with()
    with P.cached(layer), device.capture(stream=7):
        value = layer.weight
        with device.on(8):
            assert layer.weight is value
    assert device.waits == [(8, 7)]


def test_nothing_is_recorded_or_waited_for_across_a_capture(device: Device) -> None:
    layer = layer_with()
    with P.cached(layer):
        with device.on(3):
            layer.weight  # noqa: B018
        with device.capture(stream=4):
            layer.weight  # noqa: B018
        with device.on(5):
            layer.weight  # noqa: B018
    assert device.waits == []


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_persistent_value_survives_a_capture(
    device: Device, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = layer_with(Exp()).eval()
    kept = P.cached(layer, persistent=True, check_contents=True)
    with mode():
        with kept:
            value = layer.weight
        with device.capture(), kept as scope, monkeypatch.context() as patch:
            patch.delattr(torch, "equal")  # a comparison would wait for the device
            inside = layer.weight
            assert layer.weight is inside is not value
            assert not scope.lasting or scope.lasting.held() != {}
        with kept:
            assert layer.weight is value


def test_a_model_that_caches_by_itself_evaluates_once_in_a_capture(device: Device) -> None:
    layer = layer_with(Exp()).eval()
    model = nn.Sequential(layer, layer).eval()
    P.auto_cache(model)
    Exp.evaluations = 0
    with torch.no_grad():
        model(torch.ones(3))
        with device.capture():
            model(torch.ones(3))
        assert Exp.evaluations == 2
        model(torch.ones(3))
    assert Exp.evaluations == 2


def trained(**options: Any) -> tuple[Any, torch.optim.Optimizer]:
    layer = layer_with()
    return layer, torch.optim.SGD(layer.parameters(), lr=0.1, **options)


def test_replays_of_a_captured_step_expire_what_depends_on_it(device: Device) -> None:
    layer, optimizer = trained()
    other = layer_with()
    with device.capture() as graph:
        layer.weight.sum().backward()
        optimizer.step()
    with device.capture() as inference:
        layer.weight  # noqa: B018
    with torch.no_grad(), P.cached(layer, other):
        value, unrelated = layer.weight, other.weight
        inference.replay()
        assert layer.weight is value
        original_of(layer).data.add_(1)  # what the replay does: torch does not count it
        graph.replay()
        torch.testing.assert_close(layer.weight, 2 * original_of(layer))
        assert other.weight is unrelated


def test_a_step_in_a_capture_expires_what_was_read_before_it(device: Device) -> None:
    layer, optimizer = trained()
    with P.cached(layer), device.capture():
        first = layer.weight
        first.sum().backward()
        optimizer.step()
        assert layer.weight is not first


def test_each_replay_announces_the_captured_steps(device: Device) -> None:
    told: list[int] = []

    def listen(step: optimizers.StepMade) -> None:
        told.append(len(step.parameters))

    optimizers.on_step(listen)
    try:
        layer, optimizer = trained()
        layer.weight.sum().backward()
        with device.capture() as graph:
            optimizer.step()
            optimizer.step()
        assert len(told) == 2
        for _ in range(3):
            graph.replay()
        with device.capture() as graph:  # of something else
            pass
        graph.replay()
    finally:
        optimizers._LISTENERS.remove(listen)
    assert told == [1] * 8


def test_a_graph_that_is_freed_holds_no_parameters(device: Device) -> None:
    layer, optimizer = trained()
    with device.capture() as graph:
        layer.weight.sum().backward()
        optimizer.step()
    original = ref(original_of(layer))
    del layer, optimizer
    graph.replay()
    del graph
    gc.collect()
    assert original() is None


def moves(layer: Any) -> int:
    """How often the state of the only map of `layer` was written to."""
    return int(layer.parametrizations.weight[0]._u._version)


def spectral() -> Any:
    return P.register_parametrization(nn.Linear(4, 4), "weight", SpectralNorm())


def test_warm_starts_move_in_each_capture_of_a_training_step(device: Device) -> None:
    layer = spectral()
    before = moves(layer)
    layer.weight  # noqa: B018
    assert moves(layer) == before  # no step is pending
    with device.capture():
        layer.weight  # noqa: B018
        in_graph = moves(layer)
        layer.weight  # noqa: B018
        assert moves(layer) == in_graph > before
    layer.weight  # noqa: B018
    assert moves(layer) == in_graph
    with device.capture():
        layer.weight  # noqa: B018
        assert moves(layer) > in_graph


def test_warm_starts_stay_in_captures_of_an_evaluation(device: Device) -> None:
    layer = spectral().eval()
    before = moves(layer)
    with device.capture():
        layer.weight  # noqa: B018
    assert moves(layer) == before


def test_a_replayed_step_is_pending_for_eager_code(device: Device) -> None:
    layer = spectral()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer.weight.sum().backward()
    with device.capture() as graph:
        optimizer.step()
    layer.weight  # noqa: B018
    before = moves(layer)
    layer.weight  # noqa: B018
    assert moves(layer) == before
    graph.replay()
    layer.weight  # noqa: B018
    assert moves(layer) > before


def test_deferred_gradients_in_a_capture(device: Device) -> None:
    layer = layer_with()
    with device.capture(), P.cached(layer, deferred=True):
        for _ in range(3):
            layer.weight.sum().backward()
    torch.testing.assert_close(original_of(layer).grad, torch.full((3, 3), 6.0))


def test_a_capture_inside_of_a_deferred_scope_sends_gradients_at_once(device: Device) -> None:
    layer = layer_with()
    with P.cached(layer, deferred=True) as scope:
        layer.weight.sum().backward()
        assert original_of(layer).grad is None
        scope.backward()
        with device.capture():
            for number in (2, 3):
                layer.weight.sum().backward()
                torch.testing.assert_close(
                    original_of(layer).grad, torch.full((3, 3), 2.0 * number)
                )


def test_a_deferred_sum_cannot_leave_its_capture(device: Device) -> None:
    layer = layer_with()
    scope = P.cached(layer, deferred=True)
    with device.capture():
        scope.__enter__()
        layer.weight.sum().backward()
    with pytest.raises(DeferredGradientError, match="capture of a CUDA graph.*'weight'"):
        scope.__exit__(None, None, None)
    assert original_of(layer).grad is None


def test_a_gradient_cannot_reach_a_leaf_of_another_capture(device: Device) -> None:
    layer = layer_with()
    with P.cached(layer, deferred=True):
        value = layer.weight
        with (
            device.capture(),
            pytest.raises(DeferredGradientError, match="inside torch.cuda.graph"),
        ):
            value.sum().backward()
        value.sum().backward()
    torch.testing.assert_close(original_of(layer).grad, torch.full((3, 3), 2.0))
