"""Notes on exceptions: which map, of which tensor, of which module in the model."""

from __future__ import annotations

import sys
from contextlib import suppress
from types import FrameType

from torch.nn import Module

from paramdesc.errors import add_note
from paramdesc.torch_internals.dynamo import is_dynamo_compiling

__all__ = ["explain"]


def explain(
    error: BaseException, chain: Module, doing: str, parametrization: Module | None
) -> None:
    """Add a note to `error` that says what `chain` was doing, and with which of its maps."""
    if is_dynamo_compiling():
        return  # the evaluation is repeated in eager code, which raises with a note
    host = str(chain.host)
    path = find_path(chain)
    if path:
        host = f"{host} at {path!r}"
    names = [name for name, module in chain._modules.items() if module is parametrization]
    place = f": map {names[0]}, {type(parametrization).__name__}" if names else ""
    add_note(error, f"while {doing} {chain.tensor_name!r} of {host}{place}")


def find_path(chain: Module) -> str:
    """The path of the module that `chain` belongs to, in the outermost module that is running.

    It is searched for in the frames of the callers, since a module does not know its parent. Empty
    if none of them runs a module that contains the chain.
    """
    found = ""
    seen: set[int] = set()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        # only methods: reading f_locals of a function keeps its variables alive
        is_method = frame.f_code.co_varnames[:1] == ("self",)
        runner = frame.f_locals["self"] if is_method else None
        if isinstance(runner, Module) and runner is not chain and id(runner) not in seen:
            seen.add(id(runner))
            with suppress(Exception):  # a note must not hide the error
                for path, module in runner.named_modules():
                    if module is chain:
                        found = path.rpartition(".parametrizations.")[0] or found
        frame = frame.f_back
    return found
