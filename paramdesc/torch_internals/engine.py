"""What paramdesc knows of `torch.nn.utils.parametrize`, whose modules it may meet.

torch's engine gives a module a class of its own, with a property for each name. Modules that it
parametrizes are recognized by that class, and calls from its functions by their code objects on the
stack, which is the only trace of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import Module, ModuleDict
from torch.nn.utils import parametrizations, parametrize

__all__ = [
    "caller_in_torch_engine",
    "disown",
    "is_torch_parametrized",
    "without_power_iterations",
]

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


def disown(module: Module, tensor_name: str) -> None:
    """Take the chain of `tensor_name` and its property off a module that torch parametrizes.

    Copies of a module share the class that torch made for it, so that class is never changed: the
    module gets the class that it had before, or one with the remaining properties.
    """
    cls = type(module)
    chains: ModuleDict = module.parametrizations  # type: ignore[assignment]
    del chains._modules[tensor_name]
    if len(chains._modules) == 0:
        del module._modules["parametrizations"]
        module.__class__ = cls.__bases__[0]
        return
    automatic = ("__dict__", "__weakref__", tensor_name)
    members = {name: x for name, x in vars(cls).items() if name not in automatic}
    module.__class__ = type(cls.__name__, cls.__bases__, members)


@contextmanager
def without_power_iterations(chain: Module) -> Iterator[None]:
    """Inside, torch's spectral norm makes no step of its iteration, as in evaluation mode.

    In training mode it makes one at each evaluation, so that no two values are equal.
    """
    kind = parametrizations._SpectralNorm
    maps = [x for x in chain._modules.values() if isinstance(x, kind) and x.training]
    for x in maps:
        x.training = False
    try:
        yield
    finally:
        for x in maps:
            x.training = True
