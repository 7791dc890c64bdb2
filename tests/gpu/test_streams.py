"""Kept values are right on every stream, also where nothing else orders the streams."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.parametrizations import Symmetric
from tests.gpu.device import DEVICE, cuda_only

pytestmark = cuda_only

CYCLES = 200_000_000
"""A tenth of a second: the reader is there long before the value, unless it waits."""


CUDA: Any = torch.cuda


def new_stream() -> Any:
    return CUDA.Stream()


class Late(nn.Module):
    """`X + 1`, which the device reaches late."""

    def forward(self, X: Tensor) -> Tensor:
        if not torch.cuda.is_current_stream_capturing():
            CUDA._sleep(CYCLES)
        return X + 1

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y - 1


@pytest.fixture
def layer() -> Any:
    """A weight of ones. Memory that is not written yet holds something else."""
    linear = nn.Linear(512, 512, bias=False, device=DEVICE)
    P.register_parametrization(linear, "weight", Late())
    with torch.no_grad():
        for original in linear.parameters():
            original.zero_()
    filler = torch.full((4, 512, 512), 7.0, device=DEVICE)
    torch.cuda.synchronize()
    del filler
    return linear


def test_a_value_is_waited_for_on_another_stream(layer: Any) -> None:
    first, second = new_stream(), new_stream()
    with P.cached(layer), torch.no_grad():
        with torch.cuda.stream(first):
            layer.weight  # noqa: B018
        with torch.cuda.stream(second):
            total = layer.weight.sum()
        second.synchronize()
        assert total.item() == 512 * 512


def test_its_memory_is_not_used_again_too_early(layer: Any) -> None:
    first, second = new_stream(), new_stream()
    with torch.no_grad():
        with P.cached(layer):
            with torch.cuda.stream(first):
                layer.weight  # noqa: B018
            with torch.cuda.stream(second):
                value = layer.weight
                CUDA._sleep(CYCLES)
                total = value.sum()
                del value
        with torch.cuda.stream(first):  # the value is freed, the second stream has yet to read it
            others = [torch.full((512, 512), 9.0, device=DEVICE) for _ in range(8)]
        torch.cuda.synchronize()
        assert total.item() == 512 * 512
        assert len(others) == 8


@pytest.mark.parametrize("way", ["persistent", "automatic"])
def test_threads_with_streams_of_their_own(layer: Any, way: str) -> None:
    model = nn.Sequential(layer).eval()
    kept = P.cached(model, persistent=True)
    if way == "automatic":
        P.auto_cache(model)
    start = threading.Barrier(4)
    totals: list[float] = []

    def answer() -> None:
        stream = new_stream()
        start.wait()
        with torch.cuda.stream(stream), torch.no_grad():
            if way == "automatic":
                result = model(torch.ones(1, 512, device=DEVICE)).sum()
            else:
                with kept:
                    result = model(torch.ones(1, 512, device=DEVICE)).sum()
            stream.synchronize()
            totals.append(result.item())

    threads = [threading.Thread(target=answer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == [512.0 * 512] * 4


def test_deferred_gradients_from_several_streams() -> None:
    layer: Any = nn.Linear(512, 512, bias=False, device=DEVICE)
    P.register_parametrization(layer, "weight", Symmetric())
    original = layer.parametrizations.weight.original
    streams = [new_stream() for _ in range(3)]
    torch.cuda.synchronize()
    with P.cached(layer, deferred=True):
        for stream in streams:
            with torch.cuda.stream(stream):
                CUDA._sleep(CYCLES)
                layer.weight.sum().backward()
    torch.cuda.synchronize()
    found = original.grad.clone()
    original.grad = None
    (3 * layer.weight.sum()).backward()
    torch.testing.assert_close(found, original.grad)


def test_a_backward_pass_on_another_stream(layer: Any) -> None:
    first, second = new_stream(), new_stream()
    with P.cached(layer):
        with torch.cuda.stream(first):
            layer.weight  # noqa: B018
        with torch.cuda.stream(second):
            layer.weight.square().sum().backward()
        torch.cuda.synchronize()
    (original,) = layer.parameters()
    assert original.grad.unique().tolist() == [2.0]
