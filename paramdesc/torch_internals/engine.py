"""What paramdesc knows of `torch.nn.utils.parametrize`, whose modules it may meet.

torch's engine gives a module a class of its own, with a property for each name. Modules
that it parametrizes are recognised by that class, and its functions by their code objects
on the stack: no other trace tells that one of them is asking.
"""

from __future__ import annotations

import sys

import torch
from torch.nn import Module, ModuleDict
from torch.nn.utils import parametrize

__all__ = ["caller_in_torch_engine", "is_torch_parametrized"]

_QUESTION = parametrize.is_parametrized.__code__
_FUNCTIONS = {
    function.__code__: function.__name__
    for function in (
        parametrize.register_parametrization,
        parametrize.remove_parametrizations,
        parametrize.type_before_parametrizations,
    )
}


def caller_in_torch_engine() -> str:
    """The function of torch's engine that asks, through its `is_parametrized`, about a container.

    To be called from the method of the container that is asked. Empty for anyone else.
    """
    if torch.compiler.is_compiling():
        return ""  # no frames there, and torch.compile does not trace torch's engine on ours
    frame = sys._getframe(2)
    if frame.f_code is not _QUESTION or frame.f_back is None:
        return ""
    return _FUNCTIONS.get(frame.f_back.f_code, "")


def is_torch_parametrized(module: Module) -> bool:
    """Whether torch's engine has given `module` a class with properties for its tensors."""
    chains = module.__dict__.get("_modules", {}).get("parametrizations")
    if type(chains) is not ModuleDict:
        return False
    members = vars(type(module))
    return any(isinstance(members.get(name), property) for name in chains._modules)
