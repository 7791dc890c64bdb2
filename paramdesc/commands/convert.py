"""`python -m paramdesc convert`: writes a checkpoint file in another layout."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from paramdesc.commands.files.memory import return_freed_memory
from paramdesc.commands.files.opening import open_checkpoint
from paramdesc.commands.files.sink import Content, Item
from paramdesc.commands.files.source import Source
from paramdesc.commands.files.tensors import CheckpointTensor, find_tensors
from paramdesc.commands.files.writing import check_writable, write_checkpoint
from paramdesc.commands.outcome import Refusal, in_one_line
from paramdesc.commands.progress import Progress
from paramdesc.errors import LayoutError

__all__ = ["main"]

TARGETS = {
    "plain": "`weight`, as in a model without parametrizations",
    "torch": "`parametrizations.weight.original`, ..., of paramdesc and of "
    "torch.nn.utils.parametrizations",
    "weight_g": "`weight_g` and `weight_v`, or `weight_orig`, `weight_u` and `weight_v`, of the "
    "older torch.nn.utils.weight_norm and spectral_norm",
}


def main(arguments: Sequence[str]) -> int:
    """Convert a file, and return the exit code."""
    options = make_parser().parse_args(arguments)
    return in_one_line(
        lambda: convert(
            options.file, options.out, options.to, force=options.force, quiet=options.quiet
        )
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paramdesc convert",
        description="Write the checkpoint FILE to OUT in another layout, tensor by tensor, so that "
        "large files need little memory. The file is never executed. Layouts: "
        + "; ".join(f"{name}: {meaning}" for name, meaning in TARGETS.items())
        + ".",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="what `inspect` takes")
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="a name that ends in .pt, .pth, .bin or .safetensors"
    )
    parser.add_argument("--to", choices=TARGETS, required=True, help="the layout")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser


def convert(path: Path, out: Path, target: str, *, force: bool, quiet: bool) -> None:
    """Write the checkpoint at `path` to `out` in the layout `target`."""
    check_writable(out, force=force)
    source = open_checkpoint(path)
    tensors = find_tensors(source)
    if target == "plain":
        check_values(tensors)
    items = [item for tensor in tensors for item in items_of(tensor, source, target)]
    check_keys(items)
    content = Content(items, metadata_for(tensors, source, target), source.others, source.labels)
    return_freed_memory()
    progress = Progress(sum(item.entry.n_bytes for item in items), quiet=quiet)
    try:
        write_checkpoint(out, content, progress.advance)
    finally:
        progress.close()
    if not quiet:
        print(report(tensors, source, target, out))


def items_of(tensor: CheckpointTensor, source: Source, target: str) -> list[Item]:
    """The items of the new file for one tensor."""
    keys = tensor.stored.keys
    if changes(tensor, target) == "computed":
        entry = tensor.plain_entry()
        assert entry is not None, "checked before"
        return [Item(tensor.path, entry, partial(compute, tensor, source))]
    new = keys if changes(tensor, target) == "" else tensor.renamed(target)
    return [Item(new[role], tensor.entries[role], reader(source, keys[role])) for role in new]


def changes(tensor: CheckpointTensor, target: str) -> str:
    """The change to a tensor: "computed", "renamed", or "" for none."""
    if not tensor.is_parametrized:
        return ""
    if target == "plain":
        return "computed"
    is_there = (tensor.layout == "torch") == (target == "torch")
    return "renamed" if tensor.norm() and not is_there else ""


def compute(tensor: CheckpointTensor, source: Source) -> Tensor:
    return tensor.value({role: source.read(key) for role, key in tensor.stored.keys.items()})


def reader(source: Source, key: str) -> Callable[[], Tensor]:
    return partial(source.read, key)


def check_values(tensors: Sequence[CheckpointTensor]) -> None:
    """Reject tensors whose values need their maps, with one message for all of them."""
    unknown = [tensor for tensor in tensors if tensor.plain_entry() is None]
    if not unknown:
        return
    first = unknown[0]
    others = ", ".join(repr(tensor.path) for tensor in unknown[1:4])
    more = f" The same holds for {others}" if others else ""
    if len(unknown) > 4:
        more += f" and {len(unknown) - 4} more"
    maps = f" The file says that its map is {', '.join(first.maps)}." if first.maps else ""
    raise Refusal(
        f"{LayoutError(first.path, list(first.stored.keys.values()))}{maps}{more}{'.' * bool(more)}"
    )


def check_keys(items: Sequence[Item]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.key in seen:
            raise Refusal(
                f"two tensors would be named {item.key!r}: the file stores it in two layouts."
            )
        seen.add(item.key)


def metadata_for(
    tensors: Sequence[CheckpointTensor], source: Source, target: str
) -> dict[str, Mapping[str, Any]]:
    """The `_metadata` of the new state_dict, without chains that are no longer in it."""
    metadata = dict(source.metadata)
    for tensor in tensors:
        if changes(tensor, target) == "" or not metadata:
            continue
        module, _, name = tensor.path.rpartition(".")
        chain = f"{module}.parametrizations".lstrip(".")
        if tensor.layout == "torch":
            for place in [place for place in metadata if is_below(place, f"{chain}.{name}")]:
                del metadata[place]
            if not any(is_below(place, chain) for place in metadata if place != chain):
                metadata.pop(chain, None)
        own = {key: value for key, value in metadata.get(module, {}).items() if key != SPECTRAL}
        if target == "weight_g" and tensor.norm() == "spectral":
            versions = dict(metadata.get(module, {}).get(SPECTRAL, {}))
            own[SPECTRAL] = {**versions, f"{name}.version": 1}
        if module in metadata or own:
            metadata[module] = own
    return metadata


SPECTRAL = "spectral_norm"  # where the older function of torch stores the version of its tensors


def is_below(place: str, root: str) -> bool:
    return place == root or place.startswith(f"{root}.")


def report(tensors: Sequence[CheckpointTensor], source: Source, target: str, out: Path) -> str:
    """A report of what was done, in a few lines."""
    kinds = [changes(tensor, target) for tensor in tensors]
    lines = [f"{out}: {len(tensors)} tensors, {count(kinds, target)}"]
    kept = [
        tensor.path
        for tensor in tensors
        if target != "plain" and tensor.is_parametrized and changes(tensor, target) == ""
        if (tensor.layout == "torch") != (target == "torch")
    ]
    if kept:
        shown = ", ".join(kept[:3]) + (", ..." if len(kept) > 3 else "")
        lines.append(f"kept as they are, as that layout has no form for them: {shown}")
    if any(assumes_bound(tensor) for tensor in tensors) and target == "plain":
        lines.append("spectral norms were assumed to be 1: the file does not store their bounds")
    if source.left_out:
        lines.append(f"not copied: {', '.join(source.left_out)}")
    return "\n".join(lines)


def count(kinds: Sequence[str], target: str) -> str:
    done = "computed" if target == "plain" else "renamed"
    n_done = sum(kind == done for kind in kinds)
    return f"{n_done} {done}, {len(kinds) - n_done} as they were"


def assumes_bound(tensor: CheckpointTensor) -> bool:
    return tensor.layout == "torch" and tensor.norm() == "spectral"
