"""The streams of devices that have any: which one is current, and waiting for another one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

__all__ = ["DEFAULT_STREAM", "Streams", "streams_of"]

DEFAULT_STREAM = 0
"""The number of the default stream of a device."""


class Streams:
    """The streams of one kind of device.

    Args:
        kind: the type of the device, such as "cuda".
        module: the module of torch for it, such as `torch.cuda`.
    """

    def __init__(self, kind: str, module: Any) -> None:
        self.module = module
        self.raw: Callable[[int], int] | None = getattr(
            torch._C, f"_{kind}_getCurrentRawStream", None
        )

    def current(self, device: torch.device) -> int:
        """The number of the current stream of `device`."""
        return int(self.module.current_stream(device).stream_id)

    def current_on(self, device: torch.device) -> Callable[[], int]:
        """A function that returns the number of the current stream of `device`.

        It runs at every read, so it makes no object for the stream if torch gives the number.
        """
        if self.raw is not None and device.index is not None:
            return partial(self.raw, device.index)
        return partial(self.current, device)

    def record(self, device: torch.device) -> Any:
        """An event after everything that the current stream has been given to do."""
        event = self.module.Event()
        event.record(self.module.current_stream(device))
        return event

    def wait(self, device: torch.device, event: Any, tensors: Iterable[Tensor]) -> None:
        """Make the current stream wait for `event`, and keep the memory of `tensors` for it.

        Otherwise the memory would be reused as soon as the stream that allocated it is done.
        """
        stream = self.module.current_stream(device)
        stream.wait_event(event)
        for tensor in tensors:
            tensor.data.record_stream(stream)  # .data: this does not count as a write


KINDS: dict[str, Streams | None] = {"cpu": None, "meta": None, "mps": None}


def streams_of(kind: str) -> Streams | None:
    """The streams of devices of this type, or None if they have none. Tests replace `KINDS`."""
    try:
        return KINDS[kind]
    except KeyError:
        KINDS[kind] = found = find_streams(kind)
        return found


def find_streams(kind: str) -> Streams | None:
    module: Any = getattr(torch, kind, None)
    has_all = all(hasattr(module, name) for name in ("Event", "current_stream", "is_available"))
    return Streams(kind, module) if has_all and module.is_available() else None
