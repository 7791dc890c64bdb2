"""`torch.jit.script` of a model: the one door to its private steps.

It asks each module first for `__prepare_scriptable__`, and compiles the model then. A
parametrized module answers, through its namespace, and the second step compiles the model's
twin. So torch never puts anything in the place of a module, and the model stays what it is.
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
    """Let `script` compile the models that have a parametrized module."""
    global _script
    _script = script


def compile_module(module: Module, *, share_types: bool = True) -> Any:
    """The scripted module that torch makes of `module`, which must hold nothing parametrized.

    Args:
        share_types: whether equal modules may have one type. A type whose compilation failed
            once cannot be compiled again.
    """
    create = own(_recursive.create_script_module)
    return create(module, _recursive.infer_methods_to_compile, share_types=share_types)


def prepare() -> Module:
    """The first step: the module that is asked, as it is."""
    # a namespace knows no module: it is a variable of torch's function, which calls this
    module: Any = sys._getframe(1).f_locals.get("obj")
    if not isinstance(module, Module):
        raise TypeError(f"{PREPARE} is for torch.jit.script. Call that, or paramdesc.jit.script.")
    stand_in_for(_recursive.create_script_module, compile_twin)
    _preparing.add(threading.get_ident())
    return module


def compile_twin(own: Any, module: Module, stubs: Any, *args: Any, **kwargs: Any) -> Any:
    """The second step, in the place of torch's."""
    thread = threading.get_ident()
    if thread not in _preparing:
        return NotImplemented
    _preparing.discard(thread)
    if stubs is not _recursive.infer_methods_to_compile:
        return NotImplemented
    return _script(module)
