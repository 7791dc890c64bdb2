"""Writing a checkpoint file completely, or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from torch import Tensor

from paramdesc.commands.files.source import Entry

__all__ = ["Content", "Item", "replacing", "write_bytes"]


class Item(NamedTuple):
    """A tensor to write. `entry` is known before `compute` is called, which gives the tensor."""

    key: str
    entry: Entry
    compute: Callable[[], Tensor]


class Content(NamedTuple):
    """The contents of a file to write; see `Source` for the attributes."""

    items: Sequence[Item]
    metadata: Mapping[str, Mapping[str, Any]]
    others: Mapping[str, Any]
    labels: Mapping[str, str]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that replaces `path` at the end, or is deleted after an error."""
    mode = 0o666 & ~current_umask()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)  # a temporary file is private
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(file: BinaryIO, tensor: Tensor) -> None:
    """Write the data of a contiguous tensor without copying it."""
    n_bytes = tensor.numel() * tensor.element_size()
    if n_bytes:
        file.write(memoryview((ctypes.c_char * n_bytes).from_address(tensor.data_ptr())))
