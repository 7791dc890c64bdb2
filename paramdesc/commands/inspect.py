"""`python -m paramdesc inspect`: shows what a checkpoint file contains."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paramdesc.chain.table import fill, text_table
from paramdesc.commands.files.opening import open_checkpoint
from paramdesc.commands.files.source import Entry, Source
from paramdesc.commands.files.tensors import CheckpointTensor, find_tensors
from paramdesc.commands.outcome import in_one_line

__all__ = ["main"]

UNKNOWN = "needs its map"


def main(arguments: Sequence[str]) -> int:
    """Print the contents of the file, and return the exit code."""
    options = make_parser().parse_args(arguments)
    return in_one_line(lambda: inspect(options.file, as_json=options.json, everything=options.all))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paramdesc inspect",
        description="Show which tensors of a checkpoint are parametrized, in which layout they are "
        "stored, and what a model without parametrizations would have. The file is never executed.",
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="a state_dict saved by torch (.pt, .pth, .bin), alone or in a dictionary; "
        "a .safetensors file; or the .index.json of a sharded checkpoint",
    )
    parser.add_argument("--all", action="store_true", help="also show plain tensors")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser


def inspect(path: Path, *, as_json: bool, everything: bool) -> None:
    """Print the contents of the file at `path`."""
    source = open_checkpoint(path)
    tensors = find_tensors(source)
    if as_json:
        print(json.dumps(as_data(path, source, tensors), indent=2))
    else:
        print(as_text(path, source, tensors, everything=everything))


def as_text(
    path: Path, source: Source, tensors: Sequence[CheckpointTensor], *, everything: bool
) -> str:
    shown = [tensor for tensor in tensors if everything or tensor.is_parametrized]
    n_parametrized = sum(tensor.is_parametrized for tensor in tensors)
    parts = [
        fill(
            f"{path} ({source.format}): {len(tensors)} tensors, {n_parametrized} of them "
            f"parametrized; {size(total_of(stored_entries(tensors)))}"
        )
    ]
    if shown:
        header = ["tensor", "layout", "maps", "stored", "dtype", "plain"]
        rows = [row_of(tensor) for tensor in shown]
        if not any(tensor.maps for tensor in shown):  # an empty column would take room
            header, rows = [*header[:2], *header[3:]], [[*row[:2], *row[3:]] for row in rows]
        parts += ["", text_table(header, rows), ""]
    parts.append(fill(plain_sentence(tensors)))
    if source.left_out:
        parts.append(fill(f"Also in the file: {', '.join(source.left_out)}"))
    return "\n".join(parts)


def row_of(tensor: CheckpointTensor) -> list[str]:
    plain = tensor.plain_entry()
    usual = name_of(tensor.main())
    stored = ", ".join(
        f"{role} {shape_of(entry)}" + (f" {name_of(entry)}" if name_of(entry) != usual else "")
        for role, entry in tensor.entries.items()
    )
    return [
        tensor.path,
        tensor.layout,
        ", ".join(tensor.maps),
        stored,
        usual,
        shape_of(plain) if plain is not None else UNKNOWN,
    ]


def plain_sentence(tensors: Sequence[CheckpointTensor]) -> str:
    plain = [tensor.plain_entry() for tensor in tensors]
    n_unknown = sum(entry is None for entry in plain)
    n_bytes = total_of([entry for entry in plain if entry is not None])
    if n_unknown:
        known = f", {size(n_bytes)} without them" if n_bytes else ""
        which = "1 value needs its map" if n_unknown == 1 else f"{n_unknown} values need their maps"
        return (
            f"A plain model has {len(tensors)} tensors{known}. {which}: load the file into the "
            "parametrized model, then write paramdesc.plain_state_dict(model.eval())."
        )
    return f"A plain model has {len(tensors)} tensors, {size(n_bytes)}."


def as_data(path: Path, source: Source, tensors: Sequence[CheckpointTensor]) -> dict[str, Any]:
    return {
        "file": str(path),
        "format": source.format,
        "bytes": total_of(stored_entries(tensors)),
        "also": source.left_out,
        "tensors": [
            {
                "path": tensor.path,
                "layout": tensor.layout,
                "maps": list(tensor.maps) or None,
                "stored": {
                    role: {"key": tensor.stored.keys[role], **as_fields(entry)}
                    for role, entry in tensor.entries.items()
                },
                "plain": None if (plain := tensor.plain_entry()) is None else as_fields(plain),
            }
            for tensor in tensors
        ],
    }


def as_fields(entry: Entry) -> dict[str, Any]:
    return {"shape": list(entry.shape), "dtype": name_of(entry), "bytes": entry.n_bytes}


def stored_entries(tensors: Sequence[CheckpointTensor]) -> list[Entry]:
    return [entry for tensor in tensors for entry in tensor.entries.values()]


def total_of(entries: Sequence[Entry]) -> int:
    """The size in bytes; tied tensors count once."""
    return sum({entry.memory: entry.n_bytes for entry in entries}.values())


def shape_of(entry: Entry) -> str:
    return "x".join(map(str, entry.shape)) or "scalar"


def name_of(entry: Entry) -> str:
    return str(entry.dtype).removeprefix("torch.")


def size(n_bytes: int) -> str:
    number = float(n_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError
