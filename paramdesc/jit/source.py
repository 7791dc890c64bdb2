"""Python from text, such that TorchScript finds the text again: it compiles sources only."""

from __future__ import annotations

import functools
import hashlib
import linecache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

__all__ = ["functions_in", "keep_source", "with_source"]


def keep_source(text: str) -> str:
    """The name of a file that does not exist, under which `inspect` finds `text`.

    `linecache.clearcache()` removes it, so the text is stored again at each use.
    """
    name = f"<paramdesc {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
    # without a time, linecache does not compare it with a file
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    return name


@functools.cache
def functions_in(text: str) -> dict[str, Any]:
    """What the definitions in `text` define, by name."""
    known = {"torch": torch, "Tensor": Tensor, "__name__": __name__}
    names: dict[str, Any] = {}
    exec(compile(text, keep_source(text), "exec"), known, names)
    return names


def with_source(function: FunctionType, text: str) -> FunctionType:
    """`function`, with `text` as its source for TorchScript; in Python it is unchanged."""
    code = function.__code__.replace(co_filename=keep_source(text), co_firstlineno=1)
    twin = FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    twin.__annotations__ = function.__annotations__
    twin.__dict__.update(function.__dict__)
    twin.__qualname__ = function.__qualname__
    twin.__module__ = function.__module__
    return twin
