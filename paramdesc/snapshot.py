"""All or nothing: the state of some modules, to be put back if a change to them fails."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from paramdesc.tensors import address, alias, is_wrapper, replace_data

__all__ = ["Snapshot"]


class Snapshot:
    """The classes, attributes, tensors and hooks of `modules`, as they are now.

    Only what belongs to the modules themselves: name a child to include it.
    """

    def __init__(self, *modules: Module) -> None:
        self.states = [
            (module, type(module), vars(module), dict(vars(module))) for module in modules
        ]
        self.containers = [
            (value, value.copy())
            for _, _, state, _ in self.states
            for value in map(unwrapped, state.values())
            if isinstance(value, (dict, set))
        ]
        self.tensors = [
            (tensor, alias(tensor), tensor._version, address(tensor))
            for _, container in self.containers
            if isinstance(container, dict)
            for tensor in container.values()
            if isinstance(tensor, Tensor) and not is_uncountable(tensor)
        ]

    def restore(self) -> None:
        """Put everything back, in place: the same dicts, the same objects in the same order."""
        for module, cls, state, attributes in self.states:
            if type(module) is not cls:
                module.__class__ = cls
            state.clear()
            state.update(attributes)
        for container, content in self.containers:
            container.clear()
            container.update(content)
        for tensor, before, version, place in self.tensors:
            if tensor._version != version or address(tensor) != place or is_wrapper(tensor):
                replace_data(tensor, before)


def unwrapped(value: Any) -> Any:
    """The dict inside a namespace, which shows only a part of it."""
    return getattr(value, "__wrapped__", value)


def is_uncountable(tensor: Tensor) -> bool:
    """Whether torch counts no changes to `tensor`, or it has no data yet that could change."""
    return is_lazy(tensor) or tensor.is_inference()


def below(modules: Iterable[Module]) -> list[Module]:
    """The modules and everything below them, each once."""
    memo: set[Module] = set()
    return [found for module in modules for _, found in module.named_modules(memo)]
