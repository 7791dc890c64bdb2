"""Reading safetensors files."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from paramdesc.commands.files.dtypes import DTYPES
from paramdesc.commands.files.source import PIECE, Entry
from paramdesc.commands.outcome import Refusal

__all__ = ["SafetensorsFile"]


class SafetensorsFile:
    """The tensors of one `.safetensors` file."""

    format = "safetensors"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_read = 0
        self.file: Any = open_mapped(path)
        self.entries = {key: self.entry_of(key) for key in self.file.offset_keys()}
        self.labels: dict[str, str] = dict(self.file.metadata() or {})
        self.metadata: Mapping[str, Mapping[str, Any]] = {}
        self.others: dict[str, Any] = {}
        self.left_out: list[str] = []

    def entry_of(self, key: str) -> Entry:
        stored = self.file.get_slice(key)
        name = stored.get_dtype()
        if name not in DTYPES:
            raise Refusal(
                f"{key!r} in {str(self.path)!r} has the dtype {name}, which this version of "
                "torch does not have."
            )
        return Entry(DTYPES[name], tuple(stored.get_shape()), (self.path, key))

    def read(self, key: str) -> Tensor:
        if self.n_read > PIECE:  # map the file again: this frees the pages of the old mapping
            self.n_read, self.file = 0, None
            self.file = open_mapped(self.path)
        self.n_read += self.entries[key].n_bytes
        return cast(Tensor, self.file.get_tensor(key))


def open_mapped(path: Path) -> Any:
    try:
        safetensors: Any = importlib.import_module("safetensors")
    except ImportError:
        raise Refusal(
            f"{str(path)!r} is a safetensors file, but safetensors is not installed. Run: pip "
            "install safetensors"
        ) from None
    try:
        return safetensors.safe_open(path, framework="pt", device="cpu")
    except safetensors.SafetensorError as error:
        raise Refusal(f"{str(path)!r} is not a complete safetensors file: {error}") from error
