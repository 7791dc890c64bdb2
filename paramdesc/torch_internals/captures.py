"""Captures of CUDA graphs: which one is running, and what follows each replay.

torch only shows whether the current stream is being captured. To distinguish two captures,
`CUDAGraph.capture_begin` calls this module, and so does `CUDAGraph.replay`, which repeats the
captured operations on the device without running Python.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch

from paramdesc.torch_internals.functions import stand_in_for

__all__ = ["Capture", "current_capture", "is_capturing", "watch_captures"]


class Capture:
    """One capture of a CUDA graph.

    Each function in `after_replay` is called after each replay of the graph.
    """

    __slots__ = ("__weakref__", "after_replay")

    def __init__(self) -> None:
        self.after_replay: list[Callable[[], None]] = []


def is_stream_captured() -> bool:
    # torch.cuda must not be asked before it is initialized, which a fork would not survive
    cuda: Any = torch.cuda
    return bool(cuda.is_initialized() and cuda.is_current_stream_capturing())


class Device:
    """The state of the device as torch reports it. Tests replace it."""

    has_graphs = bool(torch._C._has_cuda)
    is_capturing: Callable[[], bool] = staticmethod(
        is_stream_captured if has_graphs else lambda: False
    )


class Captures:
    """The captures that have begun, by graph, and the last of them, as long as its graph exists."""

    def __init__(self) -> None:
        self.by_graph: WeakKeyDictionary[Any, Capture] = WeakKeyDictionary()
        self.unknown = Capture()  # a capture that began before `watch_captures`
        self.last = ref(self.unknown)


_CAPTURES = Captures()


def is_capturing() -> bool:
    """Whether the current stream is being captured in a CUDA graph."""
    return Device.is_capturing()


def current_capture() -> Capture | None:
    """The capture that the current stream is in, or None.

    With captures in several threads at once, this is the one that began last.
    """
    if not Device.is_capturing():
        return None
    return _CAPTURES.last() or _CAPTURES.unknown


@cache
def watch_captures(begun: Callable[[], None]) -> None:
    """From now on, notice captures and replays. `begun` is called when a capture begins."""
    if not Device.has_graphs:
        return

    def begin(own: Any, graph: Any, *args: Any, **kwargs: Any) -> Any:
        _CAPTURES.by_graph[graph] = capture = Capture()
        _CAPTURES.last = ref(capture)
        begun()
        return NotImplemented

    def replay(own: Any, graph: Any) -> Any:
        capture = _CAPTURES.by_graph.get(graph)
        if capture is None or not capture.after_replay:
            return NotImplemented
        own(graph)
        for function in capture.after_replay:
            function()
        return None

    stand_in_for(torch.cuda.CUDAGraph.capture_begin, begin)
    stand_in_for(torch.cuda.CUDAGraph.replay, replay)
