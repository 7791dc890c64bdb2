"""Writing a checkpoint file in the format that its name specifies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from paramdesc.commands.files.safetensors_sink import check_safetensors, write_safetensors
from paramdesc.commands.files.sink import Content, replacing
from paramdesc.commands.files.torch_sink import write_torch
from paramdesc.commands.outcome import Refusal

__all__ = ["check_writable", "write_checkpoint"]

TORCH = (".pt", ".pth", ".bin", ".ckpt")
SAFETENSORS = ".safetensors"


def check_writable(path: Path, *, force: bool) -> None:
    """Reject a path that cannot be written before any time is spent."""
    if path.suffix not in (*TORCH, SAFETENSORS):
        raise Refusal(
            f"the name {str(path)!r} does not determine the format. Use a name that ends in "
            f"{SAFETENSORS}, or in .pt, .pth or .bin for a torch file."
        )
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else "is in a folder that does not exist"
        raise Refusal(f"cannot write {str(path)!r}: it {what}.")
    if path.exists() and not force:
        raise Refusal(f"{str(path)!r} exists. Add --force to replace it.")


def write_checkpoint(path: Path, content: Content, advance: Callable[[int], None]) -> None:
    """Write the file, or leave an existing file at `path` as it is after an error."""
    is_safetensors = path.suffix == SAFETENSORS
    if is_safetensors:
        check_safetensors(content)
    with replacing(path) as file:
        (write_safetensors if is_safetensors else write_torch)(file, content, advance)
