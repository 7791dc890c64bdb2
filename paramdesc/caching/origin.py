"""Where a kept tensor was made: on which stream of its device, and in which CUDA graph.

A device works through each of its streams on its own. A value that was evaluated on one stream may
not be there yet when another one uses it. A value that was evaluated while a CUDA graph was
captured is in the memory of the graph, and is there only during a replay. A value from before the
capture would be a constant in the graph. So a kept value is used in the capture that it was made
in, and nowhere else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from paramdesc.torch_internals.captures import current_capture
from paramdesc.torch_internals.streams import DEFAULT_STREAM, Streams, streams_of
from paramdesc.torch_internals.tensors import memory_of

__all__ = ["Origin", "origin_of"]


class Origin:
    """The stream and the capture in which a tensor was made, which is assumed to be now.

    Args:
        streams: the streams of the device.
        device: the device.
        memory: the tensors that hold the numbers.
    """

    __slots__ = ("capture", "current", "device", "event", "memory", "ready", "streams")

    def __init__(self, streams: Streams, device: torch.device, memory: list[Tensor]) -> None:
        self.streams = streams
        self.device = device
        self.memory = memory
        self.current = streams.current_on(device)
        self.capture = current_capture()
        self.event: Any = streams.record(device)
        self.ready = {self.current()}  # the streams on which the tensor is there

    def arrive(self) -> bool:
        """Make the tensor usable on the current stream. False if it cannot be, in a capture."""
        here = self.current()
        if here in self.ready:
            # the default stream cannot be captured
            return here == DEFAULT_STREAM or current_capture() is self.capture
        if current_capture() is not self.capture:
            return False
        self.streams.wait(self.device, self.event, self.memory)
        self.ready.add(here)  # last, as other threads may use the same stream
        return True


def origin_of(tensor: Tensor) -> Origin | None:
    """The origin of a tensor that was made just now. None if its device has no streams."""
    streams = streams_of(tensor.device.type)
    if streams is None:
        return None
    memory = memory_of(tensor)
    return Origin(streams, tensor.device, memory) if memory else None
