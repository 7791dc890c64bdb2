"""A device with streams and captures for tensors on a CPU, which notes what it is asked to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc.torch_internals import captures, optimizers, streams
from tests.caching.streams.recording import Recording
from tests.helpers import linear

__all__ = ["Device", "layer_with", "make_device"]


class Device(streams.Streams):
    """Streams that are numbers. An event is the number of the stream that it was recorded on."""

    def __init__(self) -> None:
        super().__init__("cpu", None)
        self.stream = 0
        self.waits: list[tuple[int, int]] = []  # the stream that waits, and the one of the event
        self.held: list[tuple[int, int]] = []  # a stream, and the address of memory kept for it
        self.graph: Any = None  # the one that is being captured

    def current(self, device: torch.device) -> int:
        return self.stream

    def record(self, device: torch.device) -> Any:
        return self.stream

    def wait(self, device: torch.device, event: Any, tensors: Iterable[Tensor]) -> None:
        self.waits.append((self.stream, event))
        self.held += [(self.stream, tensor.data_ptr()) for tensor in tensors]

    @contextmanager
    def on(self, stream: int) -> Iterator[None]:
        """Make `stream` the current one inside."""
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    @contextmanager
    def capture(self, stream: int = 7, record: bool = False) -> Iterator[Any]:
        """Capture a graph inside, as `torch.cuda.graph` does.

        With `record`, replays repeat what is done inside. Otherwise they do nothing.
        """
        graph: Any = object.__new__(torch.cuda.CUDAGraph)
        graph._tracker = None
        with self.on(stream):
            graph.capture_begin()
            self.graph = graph
            graph.recording = Recording() if record else None
            try:
                with graph.recording or nullcontext():
                    yield graph
            finally:
                self.graph = None


def replay(graph: Any) -> None:
    if graph.recording is not None:
        graph.recording.replay()


def layer_with(parametrization: nn.Module | None = None) -> Any:
    """`linear`, untyped."""
    return linear(parametrization)


def make_device(patch: pytest.MonkeyPatch) -> Device:
    """Give tensors on a CPU streams and graphs until the end of the test."""
    device = Device()
    patch.setitem(streams.KINDS, "cpu", device)
    patch.setattr(captures.Device, "has_graphs", True)
    patch.setattr(captures.Device, "is_capturing", staticmethod(lambda: device.graph is not None))
    patch.setattr(torch._C._CUDAGraph, "capture_begin", lambda *_, **__: None, raising=False)
    patch.setattr(torch._C._CUDAGraph, "replay", replay, raising=False)
    captures.watch_captures.cache_clear()
    optimizers.watch_captured_steps()  # stays: nothing else calls these methods on a CPU
    return device
