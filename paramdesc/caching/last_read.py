"""Links the memory of a value to its chain, so that a write to the value can be assigned.

A function that writes in place, such as those of `torch.nn.init`, receives only a tensor: the
value, a view of it, or another tensor object over the same memory. So the storage of each value has
a weak reference to the chain. It exists as long as the memory does, and all threads see it.
"""

from __future__ import annotations

from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Parameter

__all__ = ["Place", "place_of", "remembered", "source_of"]

Place = tuple[torch.Size, tuple[int, ...], int | torch.SymInt, torch.dtype]
"""The part of a storage that a tensor occupies: size, stride, offset and dtype."""


def remembered(chain: Any, value: Any) -> Any:
    """Note at the storage of `value` that it is a value of `chain`, and return it."""
    try:
        base = value._base
        if base is None:  # not a view. To note its place too would cost 0.1 plain reads
            value.untyped_storage().paramdesc = ref(chain)
        elif type(base) is not Parameter:  # writing to a view of a parameter sets that
            value.untyped_storage().paramdesc = ref(chain), place_of(value)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        pass  # not a tensor, or one without memory of its own
    return value


def place_of(tensor: Tensor) -> Place:
    return tensor.size(), tensor.stride(), tensor.storage_offset(), tensor.dtype


def source_of(storage: Any) -> tuple[Any, Place | None]:
    """The chain whose value is in this memory, and the place of the value if it is a view.

    Both are None if the memory belongs to no value, or the chain has been freed.
    """
    noted = getattr(storage, "paramdesc", None)
    source, place = noted if isinstance(noted, tuple) else (noted, None)
    chain = None if source is None else source()
    return (None, None) if chain is None else (chain, place)
