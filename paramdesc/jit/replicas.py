"""Modules over the tensors of another one, of a class with more in it."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch.nn import Module, ModuleDict, ModuleList, Sequential

from paramdesc.caching.automatic import HOOK
from paramdesc.jit.paths import is_attribute
from paramdesc.jit.source import functions_in, with_source
from paramdesc.registration.container import ParametrizationDict
from paramdesc.torch_internals.script import FunctionModifiers, get_torchscript_modifier

__all__ = ["parametrized_names", "property_text", "replica", "twin_class"]


modifier: Any = get_torchscript_modifier
CONTAINERS = (ModuleDict, ModuleList, Sequential)


def replica(module: Module, cls: type, children: dict[str, Module | None]) -> Module:
    """A module of class `cls` with the state of `module`, but these children."""
    twin: Module = object.__new__(cls)
    twin.__dict__.update(module.__dict__)
    twin.__dict__["_buffers"] = dict(module._buffers.items())
    twin.__dict__["_modules"] = children
    hooks: Any = module._forward_hooks
    if HOOK in hooks:  # TorchScript would compile what `auto_cache` has put there
        for name in ("_forward_pre_hooks", "_forward_hooks", "_forward_hooks_always_called"):
            hooks = twin.__dict__[name] = getattr(module, name).copy()
            del hooks[HOOK]
    # torch lets a scripted container answer in Python by these methods of what it was made of
    for name in dir(type(module)) if isinstance(module, CONTAINERS) else ():
        method = inspect.getattr_static(type(module), name)
        if modifier(method) is FunctionModifiers.COPY_TO_SCRIPT_WRAPPER:
            twin.__dict__[name] = getattr(module, name)
    return twin


def parametrized_names(module: Module) -> list[str]:
    """The names that are to be properties: TorchScript has no other way to read a name."""
    chains = module._modules.get("parametrizations")
    names = chains._modules if isinstance(chains, ParametrizationDict) else ()
    return [name for name in names if is_attribute(name)]


def property_text(name: str) -> str:
    # torch asks for every attribute in Python too, which must not evaluate a map
    return (
        f"@property\ndef {name}(self) -> Tensor:\n"
        "    if not torch.jit.is_scripting():\n"
        "        return torch.empty(0)\n"
        f"    return self.parametrizations[{name!r}]()\n"
    )


class Quiet:
    """Makes no subclass known: those of users register, count or refuse theirs."""

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        pass


@functools.cache
def twin_class(cls: Any, text: str, methods: tuple[tuple[str, str], ...] = ()) -> type:
    """A subclass of `cls`, by the same name, with what `text` defines.

    Kept permanently, because TorchScript keeps the types that it creates for classes.
    """
    members: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    if "__firstlineno__" in vars(cls):  # Python 3.13 finds the source of a class by it
        members["__firstlineno__"] = vars(cls)["__firstlineno__"]
    texts = {
        name: with_source(inspect.unwrap(member), method)
        for name, method in methods
        for member in [inspect.getattr_static(cls, name)]
    }
    for name, _ in methods:  # `torch.jit.export` may have marked the outermost function only
        marks = dict(vars(inspect.getattr_static(cls, name)))
        marks.pop("__wrapped__", None)
        vars(texts[name]).update(marks)
    # not by the call of the metaclass, which may do more than make a class
    content = {**members, **functions_in(text), **texts}
    twin: type = type.__new__(type(cls), cls.__name__, (Quiet, cls), content)
    return twin
