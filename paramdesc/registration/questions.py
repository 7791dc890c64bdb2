"""Asking whether a module is parametrized."""

from __future__ import annotations

import torch
from torch.nn import Module

from paramdesc.registration.host import locate
from paramdesc.torch_internals.engine import is_torch_parametrized

__all__ = ["is_parametrized", "type_before_parametrizations"]


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether `module.<tensor_name>`, or any tensor of `module` if None, is parametrized.

    Parametrizations of paramdesc and of `torch.nn.utils.parametrize` count. `tensor_name` may be a
    path, such as `"0.weight"`.
    """
    if tensor_name is not None and "." in tensor_name:
        module, tensor_name = locate(module, tensor_name)
    chains = module.__dict__.get("_modules", {}).get("parametrizations")
    if not isinstance(chains, torch.nn.ModuleDict):
        return False
    return len(chains) > 0 if tensor_name is None else tensor_name in chains


def type_before_parametrizations(module: Module) -> type[Module]:
    """The class of `module`: `type(module)`, unless `torch.nn.utils.parametrize` has changed it."""
    cls = type(module)
    return cls.__bases__[0] if is_torch_parametrized(module) else cls
