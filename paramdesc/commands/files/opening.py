"""Opening a checkpoint file of any format."""

from __future__ import annotations

from pathlib import Path

from paramdesc.commands.files.safetensors_file import SafetensorsFile
from paramdesc.commands.files.sharded import ShardedFiles
from paramdesc.commands.files.source import Source
from paramdesc.commands.files.torch_file import TorchFile
from paramdesc.commands.outcome import Refusal

__all__ = ["open_checkpoint"]


def open_checkpoint(path: Path) -> Source:
    """The checkpoint at `path`, none of whose tensors is read yet.

    Raises:
        Refusal: if it is not a checkpoint, or if loading it would run code.
        OSError: if it cannot be read.
    """
    if path.is_dir():
        raise Refusal(f"{str(path)!r} is a folder. Pass the file in it, or its *.index.json.")
    if path.name.endswith(".index.json"):
        return ShardedFiles(path, open_one)
    return open_one(path)


def open_one(path: Path) -> Source:
    with path.open("rb"):  # the usual error if it is not there
        pass
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)
