"""Reading torch files, which are memory-mapped and never executed."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from paramdesc.commands.files.source import PIECE, Entry
from paramdesc.commands.outcome import Refusal

__all__ = ["TorchFile"]

USUAL = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Keys under which training scripts store the state_dict, the likeliest first."""


class TorchFile:
    """A state_dict, or a dictionary that contains one, written by `torch.save`."""

    format = "torch"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_read = 0
        content = load(path)
        self.nested, state_dict = find_state_dict(content, path)
        self.state_dict: Mapping[str, Any] | None = state_dict
        self.entries = {
            key: entry_of(key, value, path)
            for key, value in state_dict.items()
            if isinstance(value, Tensor)
        }
        self.others = {
            key: value for key, value in state_dict.items() if not isinstance(value, Tensor)
        }
        self.metadata: Mapping[str, Mapping[str, Any]] = getattr(state_dict, "_metadata", {})
        self.labels: dict[str, str] = {}
        self.left_out = [
            str(key) for key in content if self.nested is not None and key != self.nested
        ]

    def read(self, key: str) -> Tensor:
        if self.n_read > PIECE:  # map the file again: this frees the pages of the old mapping
            self.n_read, self.state_dict = 0, None
        if self.state_dict is None:
            content = load(self.path)
            self.state_dict = content if self.nested is None else content[self.nested]
        self.n_read += self.entries[key].n_bytes
        return cast(Tensor, self.state_dict[key]).detach()


def load(path: Path) -> Any:
    """Load the contents of the file with mapped tensors; only tensors and plain data are
    allowed."""
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used with files saved" not in str(error):
                raise
            # before torch 1.6 the format was another one, which cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Refusal(
            f"{str(path)!r} holds more than tensors, {culprit(error)}, so loading it would execute "
            "code from the file. If you trust it, save its state_dict in Python: "
            f'torch.save(torch.load("{path}", weights_only=False).state_dict(), "state.pt")'
        ) from error
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise Refusal(
                f"{str(path)!r} is a TorchScript program. Save its state_dict in Python: "
                f'torch.save(torch.jit.load("{path}").state_dict(), "state.pt")'
            ) from error
        raise unreadable(path) from error
    except OSError as error:  # of a file that ends too early
        if error.filename:
            raise
        raise unreadable(path) from error
    except (EOFError, ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        raise unreadable(path) from error


def unreadable(path: Path) -> Refusal:
    return Refusal(
        f"{str(path)!r} is not a torch.save file: it is damaged, incomplete, or in another format."
    )


def culprit(error: Exception) -> str:
    """The function that the file would call, from torch's message."""
    _, found, rest = str(error).partition("GLOBAL ")
    name = rest.split()[0].rstrip(".") if found and rest.split() else ""
    return f"such as {name}" if name else "a whole model, for example"


def find_state_dict(content: Any, path: Path) -> tuple[str | None, Mapping[str, Any]]:
    """The state_dict in the contents of a file, and its key there if it is nested."""
    if is_state_dict(content):
        return None, content
    nested: dict[str, Mapping[str, Any]] = {}
    if isinstance(content, Mapping):
        nested = {key: value for key, value in content.items() if is_state_dict(value)}
    for key in USUAL:
        if key in nested:
            return key, nested[key]
    if len(nested) == 1:
        return next(iter(nested.items()))
    if nested:
        shown = ", ".join(map(repr, nested))
        raise Refusal(
            f"{str(path)!r} holds several state_dicts: {shown}. Save the one that you want: "
            f'torch.save(torch.load("{path}")["{next(iter(nested))}"], "state.pt")'
        )
    raise Refusal(
        f"{str(path)!r} does not hold a state_dict, which is a dictionary of tensors by name, "
        f"but {described(content)}."
    )


def described(content: object) -> str:
    if isinstance(content, Mapping):
        keys = ", ".join(repr(key) for key in list(content)[:3])
        return f"a dictionary of {keys}{', ...' if len(content) > 3 else ''}" if keys else "empty"
    return f"a {type(content).__name__}"


def is_state_dict(content: object) -> bool:
    return (
        isinstance(content, Mapping)
        and all(isinstance(key, str) for key in content)
        and any(isinstance(value, Tensor) for value in content.values())
        and not any(is_state_dict(value) for value in content.values())
    )


def entry_of(key: str, tensor: Tensor, path: Path) -> Entry:
    if tensor.layout != torch.strided or type(tensor) not in (Tensor, nn.Parameter):
        kind = type(tensor).__name__ if tensor.layout == torch.strided else str(tensor.layout)
        raise Refusal(
            f"{key!r} in {str(path)!r} is no ordinary tensor but {kind}, which this command "
            "cannot read. Store it in the file as a dense tensor."
        )
    memory: object = (tensor.data_ptr(), tensor.shape, tensor.stride())
    return Entry(tensor.dtype, tuple(tensor.shape), memory if tensor.numel() else key)
