"""Hands the plain tensors of a checkpoint, which belong to a module, on to its chains.

`load_state_dict` gives a chain only the keys that start with its own path, and a plain checkpoint
has none of these. So each parametrized module has a hook per tensor, which runs before the module
is loaded and moves what the checkpoint stores for this tensor.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from torch.nn import Module

from paramdesc.chain.layouts import SUFFIXES, Stored

__all__ = ["GIVEN", "Given", "PlainKeys", "expect_plain", "expect_plain_last", "forget_plain"]

GIVEN = "given value"
"""The last part of the key under which a chain finds what is moved. No tensor has this name."""


class Given(NamedTuple):
    """What a checkpoint stores for a tensor: the layout with its keys, and the tensors by role."""

    stored: Stored
    tensors: dict[str, Any]


class PlainKeys:
    """Moves the keys of one tensor. A hook of a module that it does not know."""

    def __init__(self, tensor_name: str) -> None:
        self.tensor_name = tensor_name

    def __call__(self, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        path = f"{prefix}{self.tensor_name}"
        keys = find_keys(path, state_dict)
        if keys is None:
            return
        own = f"{prefix}parametrizations.{self.tensor_name}."
        originals = (f"{own}original", f"{own}parametrizations.")
        if any(key.startswith(originals) for key in state_dict):
            return  # it is stored as this library stores it, and torch reports the other keys
        tensors = {role: state_dict.pop(key) for role, key in keys[1].items()}
        state_dict[f"{own}{GIVEN}"] = Given(Stored(path, *keys), tensors)

    def __reduce__(self) -> tuple[Any, ...]:
        return PlainKeys, (self.tensor_name,)

    def __deepcopy__(self, memo: dict[int, Any]) -> PlainKeys:
        return self


def find_keys(path: str, state_dict: dict[str, Any]) -> tuple[str, dict[str, str]] | None:
    """The layout in which `state_dict` stores the tensor at `path`, and its keys by role."""
    if path in state_dict:
        return "plain", {"value": path}
    for layout, suffixes in SUFFIXES.items():
        if all(path + suffix in state_dict for suffix in suffixes.values()):
            return layout, {role: path + suffix for role, suffix in suffixes.items()}
    return None


hook_of = cache(PlainKeys)  # one object serves all tensors of a name


def expect_plain(module: Module, tensor_name: str) -> None:
    """Let `module.load_state_dict` take plain values of a tensor that is parametrized now."""
    hooks: Any = module._load_state_dict_pre_hooks
    hooks[hook_key(tensor_name)] = hook_of(tensor_name)


def expect_plain_last(module: Module, tensor_name: str) -> None:
    """Let the hook of a tensor run after all others, which may know more of their checkpoints."""
    hooks: Any = module._load_state_dict_pre_hooks
    key = hook_key(tensor_name)
    if key in hooks:
        hooks[key] = hooks.pop(key)


def forget_plain(module: Module, tensor_name: str) -> None:
    """Remove the hook of a tensor that is plain from now on."""
    hooks: Any = module._load_state_dict_pre_hooks
    hooks.pop(hook_key(tensor_name), None)


def hook_key(tensor_name: str) -> str:
    return f"paramdesc.{tensor_name}"
