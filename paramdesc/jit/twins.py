"""The twin of a model that `torch.jit.script` can compile, over the same tensors.

Every module that is parametrized, or has one below it, gets a twin: another object with the
same parameters and buffers. A parametrized name is a property of the twin's class, which
calls the twin of the chain. The model itself is only read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import Module

from paramdesc.chain.warm import is_warm
from paramdesc.jit.lists import make_list
from paramdesc.jit.replicas import parametrized_names, property_text, replica, twin_class
from paramdesc.jit.scopes import methods_with_scopes
from paramdesc.jit.source import keep_source
from paramdesc.jit.warm import make_warm_map
from paramdesc.registration.container import ParametrizationDict
from paramdesc.registration.parametrization_list import ParametrizationList

__all__ = ["Twins"]


class Twins:
    """The twins of the modules below one root, made as they are asked for.

    Args:
        root: the model.
        compile_module: makes a twin that stands in several places a scripted module, which
            stays one. TorchScript would make several of it, each with a scope of its own.
    """

    def __init__(self, root: Module, compile_module: Callable[[Module], Module]) -> None:
        self.compile_module = compile_module
        self.made: dict[Module, Module] = {}
        self.refused: list[Exception] = []  # what is wrong with scopes in methods
        self.uses = Counter(
            child for module in root.modules() for child in module._modules.values()
        )

    def twin(self, module: Module) -> Module:
        """The twin of `module`, or `module` itself if nothing in it needs one."""
        if isinstance(module, torch.jit.ScriptModule):
            return module
        if module not in self.made:
            twin = self.make(module)
            if twin is not module and self.uses[module] > 1:
                twin = self.compile_module(twin)
            self.made[module] = twin
        return self.made[module]

    def make(self, module: Module) -> Module:
        children = {
            name: None if child is None else self.twin(child)
            for name, child in module._modules.items()
        }
        if isinstance(module, ParametrizationList):
            return make_list(module, children)
        if isinstance(module, ParametrizationDict):
            return replica(module, nn.ModuleDict, children)
        if is_warm(module):
            return make_warm_map(module, children)
        names = parametrized_names(module)
        methods = methods_with_scopes(module, self.refused)
        if not names and not methods and children == module._modules:
            return module
        cls: Any = type(module)
        flat = flat_weights(module, names)
        text = "".join(property_text(name) for name in names) + flat
        for source in (text, *(method for _, method in methods)):
            keep_source(source)
        twin = replica(module, twin_class(cls, text, methods), children)
        if flat:
            del twin.__dict__["_flat_weights"]
        return twin


def flat_weights(module: Module, parametrized: Sequence[str]) -> str:
    """The list of weights that `nn.RNN`, `nn.LSTM` and `nn.GRU` keep, as a property."""
    names = module.__dict__.get("_flat_weights_names", ())
    if not set(names) & set(parametrized):
        return ""
    listed = ", ".join(f"self.{name}" for name in names)
    return f"@property\ndef _flat_weights(self) -> list[Tensor]:\n    return [{listed}]\n"
