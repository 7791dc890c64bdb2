"""Writing files as `torch.save` does, but one tensor at a time.

`torch.save` needs all tensors in memory at once. Its files are archives with a pickle that refers
to the storages by number, and a record for each storage; here these are written one after the
other.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import torch

from paramdesc.commands.files.sink import Content
from paramdesc.commands.files.source import Entry

__all__ = ["write_torch"]

PROTOCOL = 2  # torch's, also what `weights_only=True` reads


class StorageStandIn(NamedTuple):
    """A storage in the pickle: the file holds its numbers as another record."""

    type: Any
    number: str
    n_elements: int


class TensorStandIn:
    """A tensor in the pickle, with a storage of its own."""

    def __init__(self, entry: Entry, number: str) -> None:
        self.entry = entry
        self.number = number

    def __reduce__(self) -> Any:
        """Pickle it as torch pickles a contiguous tensor of this dtype."""
        entry = self.entry
        like: Any = torch.empty(0, dtype=entry.dtype)
        rebuild, (storage, _, _, _, *rest) = like.__reduce_ex__(PROTOCOL)
        strides = torch.empty(entry.shape, device="meta").stride()
        size = entry.n_bytes
        if isinstance(storage, torch.UntypedStorage):
            kind: Any = torch.UntypedStorage
        else:
            kind = getattr(torch, storage._pickle_storage_type())
            size //= entry.dtype.itemsize
        stand_in = StorageStandIn(kind, self.number, size)
        return rebuild, (stand_in, 0, entry.shape, strides, *rest)


class Pickler(pickle.Pickler):
    """Storages are references to records."""

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, StorageStandIn):
            return ("storage", value.type, value.number, "cpu", value.n_elements)
        return None


def write_torch(file: BinaryIO, content: Content, advance: Callable[[int], None]) -> None:
    """Write a state_dict. Tied tensors share their storage, as in the file that they come from."""
    numbers: dict[object, str] = {}
    state_dict: OrderedDict[str, Any] = OrderedDict()
    for key, entry, _ in content.items:
        number = numbers.setdefault(entry.memory, str(len(numbers)))
        state_dict[key] = TensorStandIn(entry, number)
    state_dict.update(content.others)
    if content.metadata:
        state_dict._metadata = OrderedDict(content.metadata)  # type: ignore[attr-defined]

    archive: Any = torch._C.PyTorchFileWriter(file)
    try:
        pickled = io.BytesIO()
        Pickler(pickled, PROTOCOL).dump(state_dict)
        write_record(archive, "data.pkl", pickled.getvalue())
        write_record(archive, "byteorder", sys.byteorder.encode())
        for _, entry, compute in content.items:
            number = numbers.pop(entry.memory, "")
            if number:  # the first of those that are tied
                tensor = compute().resolve_conj().contiguous()
                storage = own_storage(tensor, entry.n_bytes)
                archive.write_record(f"data/{number}", storage, entry.n_bytes)
            advance(entry.n_bytes)
    finally:
        archive.write_end_of_file()  # without it, the writer warns when it is freed


def own_storage(values: torch.Tensor, n_bytes: int) -> torch.UntypedStorage:
    """A storage that begins with `values` and has nothing before it: no copy where that is so."""
    storage = values.untyped_storage()
    if values.storage_offset() == 0 and storage.nbytes() >= n_bytes:
        return storage
    return values.clone().untyped_storage()


def write_record(archive: Any, name: str, content: bytes) -> None:
    archive.write_record(name, content, len(content))
