"""Scripting a model with parametrized modules, and explaining why a map cannot be scripted."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Module

from paramdesc.caching.active import active_scopes
from paramdesc.caching.switched_off import disabling_scopes
from paramdesc.errors import DisabledError, ScriptingError
from paramdesc.jit.twins import Twins
from paramdesc.registration.collection import get_parametrizations
from paramdesc.registration.host import check_model
from paramdesc.torch_internals.locks import ProcessLock
from paramdesc.torch_internals.script import compile_module, on_script

__all__ = ["script"]


def script(model: Module) -> torch.jit.ScriptModule:
    """Compile `model` to a TorchScript program that evaluates its parametrized tensors.

    The program shares the parameters and buffers of `model`, with the same names in its
    `state_dict`, and can train them. `model` is not changed. `torch.jit.script(model)` gives the
    same result if a module of `model` is parametrized.

    `with paramdesc.cached(...)` can be used in scripted methods, and around calls of the program,
    also after it was saved and loaded.

    Raises:
        TypeError: if `model` is not a module.
        DisabledError: a RuntimeError, inside a `disabled` block, which a program cannot follow.
        ScriptingError: a RuntimeError, if TorchScript cannot compile a map. It names the map, the
            tensor and the line.
        Exception: other errors of TorchScript propagate unchanged.
    """
    check_model("jit.script", model)
    if disabling_scopes(active_scopes()):
        raise DisabledError.scripted()
    with _COMPILING():
        twins = Twins(model, compile_module)
        try:
            twin = twins.twin(model)
            if isinstance(twin, torch.jit.ScriptModule):
                return twin
            program: torch.jit.ScriptModule = compile_module(twin)
            return program
        except Exception as error:
            if twins.refused and "cached.py" in str(error):  # TorchScript has come to `cached`
                raise twins.refused[0] from error
            explain_refusal(model, twins, error)
            raise


_COMPILING = ProcessLock()
"""Two threads that compile a type for the first time make it twice, which TorchScript refuses."""


def explain_refusal(model: Module, twins: Twins, error: Exception) -> None:
    """Raise an error that names the map which TorchScript refuses, if it is one."""
    for name, chain in get_parametrizations(model).items():
        twin = twins.made.get(chain)
        refusal = None if twin is None else refusal_of(twin)
        if twin is not None and refusal is not None:
            for index, _ in enumerate(chain.maps()):
                child: Any = twin._modules[str(index)]
                refused = refusal_of(child)
                if refused is not None:
                    raise ScriptingError(name, index, child, refused) from error
            raise ScriptingError(name, None, chain, refusal) from error


def refusal_of(module: Module) -> Exception | None:
    """What torch raises when it compiles `module`, if anything."""
    if isinstance(module, torch.jit.ScriptModule):
        return None
    try:
        compile_module(module, share_types=False)
    except Exception as error:
        return error
    return None


on_script(script)
