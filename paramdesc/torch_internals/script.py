"""The private steps of `torch.jit.script` that paramdesc relies on.

`torch.jit.script` first calls `__prepare_scriptable__` on each module that has it, and then
compiles the model. A parametrized module has it, through its namespace, and returns itself. The
second step then compiles the twin of the model. So torch never replaces a module, and the model
stays as it is.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from torch._jit_internal import FunctionModifiers, get_torchscript_modifier, is_ignored_fn
from torch.jit import _recursive
from torch.jit._script import RecursiveScriptModule
from torch.nn import Module

from paramdesc.torch_internals.functions import own, stand_in_for
from paramdesc.torch_internals.locks import in_child

__all__ = [
    "PREPARE",
    "FunctionModifiers",
    "RecursiveScriptModule",
    "compile_module",
    "get_torchscript_modifier",
    "is_ignored_fn",
    "on_script",
    "prepare",
]

PREPARE = "__prepare_scriptable__"

_preparing: set[int] = set()  # the threads between the two steps
in_child(_preparing.clear)
_script: Callable[[Module], Module]


def on_script(script: Callable[[Module], Module]) -> None:
    """Register `script` as the function that compiles models with a parametrized module."""
    global _script
    _script = script


def compile_module(module: Module, *, share_types: bool = True) -> Any:
    """Compile `module`, which must not contain parametrized tensors, with torch's own function.

    Args:
        share_types: whether equal modules may share a type. A type whose compilation has failed
            cannot be compiled again.
    """
    create = own(_recursive.create_script_module)
    return create(module, _recursive.infer_methods_to_compile, share_types=share_types)


def prepare() -> Module:
    """The first step, `__prepare_scriptable__`: returns the module itself."""
    # the namespace has no reference to its module, but the calling function of torch has
    module: Any = sys._getframe(1).f_locals.get("obj")
    if not isinstance(module, Module):
        raise TypeError(
            f"{PREPARE} is only for torch.jit.script. Call torch.jit.script or "
            "paramdesc.jit.script."
        )
    stand_in_for(_recursive.create_script_module, compile_twin)
    _preparing.add(threading.get_ident())
    return module


def compile_twin(own: Any, module: Module, stubs: Any, *args: Any, **kwargs: Any) -> Any:
    """The second step, which runs instead of torch's own."""
    thread = threading.get_ident()
    if thread not in _preparing:
        return NotImplemented
    _preparing.discard(thread)
    if stubs is not _recursive.infer_methods_to_compile:
        return NotImplemented
    return _script(module)
