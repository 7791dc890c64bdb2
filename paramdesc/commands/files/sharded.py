"""Checkpoints in several files, with an index of the file of each tensor."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from paramdesc.commands.files.source import Source
from paramdesc.commands.outcome import Refusal

__all__ = ["ShardedFiles"]


class ShardedFiles:
    """The files that a `*.index.json` names."""

    def __init__(self, path: Path, open_one: Callable[[Path], Source]) -> None:
        places = read_index(path)
        self.files = {name: open_one(path.parent / name) for name in sorted(set(places.values()))}
        self.places = places
        missing = [key for key, name in places.items() if key not in self.files[name].entries]
        if missing:
            raise Refusal(
                f"{places[missing[0]]!r} lacks {missing[0]!r}, which {str(path)!r} says is "
                "there: the index and the files do not belong to the same checkpoint."
            )
        self.entries = {key: self.files[name].entries[key] for key, name in places.items()}
        formats = {file.format for file in self.files.values()}
        self.format = f"{' and '.join(sorted(formats))}, {len(self.files)} files"
        self.metadata: Mapping[str, Mapping[str, Any]] = {}
        self.others: dict[str, Any] = {}
        self.labels: dict[str, str] = {}
        self.left_out: list[str] = []
        for file in self.files.values():
            self.metadata = {**self.metadata, **file.metadata}
            self.others.update(file.others)
            self.labels.update(file.labels)
            self.left_out += file.left_out

    def read(self, key: str) -> Tensor:
        return self.files[self.places[key]].read(key)


def read_index(path: Path) -> dict[str, str]:
    """The name of the file of each tensor."""
    try:
        content = json.loads(path.read_text("utf-8"))
        places = content["weight_map"]
        valid = all(isinstance(key, str) and is_name(name) for key, name in places.items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_an_index(path) from error
    if not valid or not places:
        raise not_an_index(path)
    return dict(places)


def is_name(name: object) -> bool:
    """Whether `name` is a file next to the index, and not a path to another folder."""
    return isinstance(name, str) and name not in ("", "..") and Path(name).name == name


def not_an_index(path: Path) -> Refusal:
    return Refusal(
        f"{str(path)!r} is not an index of a sharded checkpoint: it needs a 'weight_map' from the "
        "names of tensors to the names of files in the same folder."
    )
