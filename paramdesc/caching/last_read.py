"""The memory of a value knows its chain.

What writes to a value in place, as `torch.nn.init` does, is handed a tensor and nothing else:
the value, a view of it, or another tensor object over its memory. So the chain is noted at the
storage of its value, by a weak reference. It stays as long as the memory does, for all threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor

__all__ = ["Place", "place_of", "remembered", "source_of"]


class Place(NamedTuple):
    """Which part of a storage a tensor is."""

    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype


def remembered(chain: Any, value: Any) -> Any:
    """`value`, known as one of `chain`."""
    try:
        source = ref(chain)
        # what is a view need not be all of its memory; three more questions cost 0.2 plain reads
        value.untyped_storage().paramdesc = (source, place_of(value)) if value._is_view() else source
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        pass  # no tensor, or one without memory of its own
    return value


def place_of(tensor: Tensor) -> Place:
    return Place(tensor.size(), tensor.stride(), tensor.storage_offset(), tensor.dtype)


def source_of(storage: Any) -> tuple[Any, Place | None]:
    """The chain whose value last had this memory, and its place if that is a view.

    Both are None if there is none, or it is no more.
    """
    noted = getattr(storage, "paramdesc", None)
    source, place = noted if isinstance(noted, tuple) else (noted, None)
    chain = None if source is None else source()
    return (None, None) if chain is None else (chain, place)
