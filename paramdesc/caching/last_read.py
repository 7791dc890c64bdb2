"""The memory of a value knows its chain.

What writes to a value in place, as `torch.nn.init` does, is handed a tensor and nothing else:
the value, a view of it, or another tensor object over its memory. So the chain is noted at the
storage of its value, by a weak reference. It stays as long as the memory does, for all threads.
"""

from __future__ import annotations

from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Parameter

__all__ = ["Place", "place_of", "remembered", "source_of"]

Place = tuple[torch.Size, tuple[int, ...], int | torch.SymInt, torch.dtype]
"""Which part of a storage a tensor is: size, stride, offset and dtype."""


def remembered(chain: Any, value: Any) -> Any:
    """`value`, known as one of `chain`."""
    try:
        base = value._base
        if base is None:  # all of its memory: to note the place always would be 0.1 plain reads
            value.untyped_storage().paramdesc = ref(chain)
        elif type(base) is not Parameter:  # to write to a view of a parameter sets the parameter
            value.untyped_storage().paramdesc = ref(chain), place_of(value)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        pass  # no tensor, or one without memory of its own
    return value


def place_of(tensor: Tensor) -> Place:
    return tensor.size(), tensor.stride(), tensor.storage_offset(), tensor.dtype


def source_of(storage: Any) -> tuple[Any, Place | None]:
    """The chain whose value last had this memory, and the place of the value if it is a view.

    Both are None if there is none, or it is no more.
    """
    noted = getattr(storage, "paramdesc", None)
    source, place = noted if isinstance(noted, tuple) else (noted, None)
    chain = None if source is None else source()
    return (None, None) if chain is None else (chain, place)
