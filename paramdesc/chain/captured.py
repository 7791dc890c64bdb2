"""Training steps in the captures of CUDA graphs, whose replays run no Python."""

from __future__ import annotations

from typing import Any
from weakref import ref

from paramdesc.chain.transient import transient_of
from paramdesc.torch_internals.captures import current_capture

__all__ = ["begins_capture"]


def begins_capture(chain: Any) -> bool:
    """Whether this is the first call for `chain` in the present capture of a CUDA graph.

    A captured training step is replayed many times, each time after another step. So the states of
    maps with a warm start must move in the graph, whether or not a step is pending now.
    """
    capture = current_capture()
    if capture is None:
        return False
    transient = transient_of(chain)
    is_first = transient.capture is None or transient.capture() is not capture
    transient.capture = ref(capture)
    return is_first
