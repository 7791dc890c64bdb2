"""The contents of a checkpoint file, and how its tensors are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["PIECE", "Entry", "Source"]

PIECE = 128 * 2**20
"""So many bytes are read before a mapped file is mapped anew, which gives the memory back."""


class Entry(NamedTuple):
    """A tensor of a file. Tensors with the same `memory` are tied."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    memory: object

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Source(Protocol):
    """An open checkpoint file.

    Attributes:
        format: the name of the format.
        entries: the tensors by key, in the order of the file.
        metadata: the `_metadata` of the state_dict, by path of module; empty if there is none.
        others: values of the state_dict that are not tensors, by key.
        labels: the text that a safetensors file carries.
        left_out: the contents of the file besides the state_dict.
    """

    format: str
    entries: dict[str, Entry]
    metadata: Mapping[str, Mapping[str, Any]]
    others: dict[str, Any]
    labels: dict[str, str]
    left_out: list[str]

    def read(self, key: str) -> Tensor:
        """The tensor itself, on the CPU."""
        ...
