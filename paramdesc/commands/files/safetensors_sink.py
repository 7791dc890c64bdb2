"""Writing safetensors: a header, and then the data of one tensor after the other."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from paramdesc.commands.files.dtypes import NAMES
from paramdesc.commands.files.sink import Content, write_bytes
from paramdesc.commands.outcome import Refusal

__all__ = ["check_safetensors", "write_safetensors"]

ALIGNMENT = 8


def check_safetensors(content: Content) -> None:
    """Reject contents that the format cannot hold."""
    for item in content.items:
        if item.entry.dtype not in NAMES:
            raise Refusal(
                f"{item.key!r} has dtype {str(item.entry.dtype).removeprefix('torch.')}, which "
                "safetensors files cannot hold. Write a .pt file."
            )
    if content.others:
        key = next(iter(content.others))
        raise Refusal(
            f"{key!r} is no tensor but {type(content.others[key]).__name__}, which safetensors "
            "files cannot hold. Write a .pt file."
        )
    if sys.byteorder != "little":
        raise Refusal("safetensors files are little-endian: write a .pt file on this computer.")


def write_safetensors(file: BinaryIO, content: Content, advance: Callable[[int], None]) -> None:
    """Write the file. Tied tensors are stored once for each name, as the format requires."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **content.labels}}
    # large dtypes first, so that all stay aligned, as in safetensors
    items = sorted(content.items, key=lambda item: -item.entry.dtype.itemsize)
    end = 0
    for key, entry, _ in items:
        start, end = end, end + entry.n_bytes
        header[key] = {
            "dtype": NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    for item in items:
        write_bytes(file, item.compute().resolve_conj().contiguous())
        advance(item.entry.n_bytes)
