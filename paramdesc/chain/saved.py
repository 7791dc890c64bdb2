"""Detects that the tensors of a state_dict were overwritten after it was made.

`torch.distributed.checkpoint` takes a state_dict of the model and loads into its tensors.
Afterwards the metadata of the state_dict still describes the old numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["is_overwritten", "remember_saved"]

_VERSIONS: Any = WeakIdKeyDictionary()


def remember_saved(tensors: Iterable[Any]) -> None:
    """Remember the versions of tensors that have just been put into a state_dict."""
    for tensor in tensors:
        if isinstance(tensor, Tensor) and not tensor.is_inference():
            _VERSIONS[tensor] = tensor._version


def is_overwritten(tensor: Any) -> bool:
    """Whether `tensor` was put into a state_dict and written to afterwards. False for a copy."""
    version = _VERSIONS.get(tensor) if isinstance(tensor, Tensor) else None
    return version is not None and version != tensor._version
