"""All or nothing: the state of some modules, to be put back if a change to them fails."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.nn import Module

from paramdesc.registration.namespace import AttributeNamespace
from paramdesc.torch_internals.tensors import address, is_wrapper, replace_data

__all__ = ["Snapshot", "below"]


class Snapshot:
    """The classes, attributes, tensors and hooks of modules, and the data of tensors, as they are.

    Args:
        modules: those whose own state is kept: name a child to include it.
        tensors: those that may be given other data.
    """

    def __init__(self, modules: Iterable[Module], tensors: Iterable[Tensor] = ()) -> None:
        self.states = [
            (module, type(module), vars(module), dict(vars(module))) for module in modules
        ]
        containers: list[Any] = [
            value.__wrapped__ if type(value) is AttributeNamespace else value
            for _, _, state, _ in self.states
            for value in state.values()
            if isinstance(value, (dict, set, AttributeNamespace))
        ]
        self.containers = [(value, value.copy() if value else ()) for value in containers]
        self.tensors = [(x, x.detach(), x._version, address(x)) for x in tensors if is_counted(x)]

    def restore(self) -> None:
        """Put everything back, in place: the same dicts, the same objects in the same order."""
        for module, cls, state, attributes in self.states:
            if type(module) is not cls:
                module.__class__ = cls
            put_back(state, attributes)
        for container, content in self.containers:
            put_back(container, content)
        for tensor, before, version, place in self.tensors:
            if tensor._version != version or address(tensor) != place or is_wrapper(tensor):
                replace_data(tensor, before)


def put_back(container: Any, content: Any) -> None:
    """Let the dict or set hold `content` again, in its order.

    What has not changed is never gone: another thread may be reading it.
    """
    for added in [key for key in container if key not in content]:
        container.discard(added) if isinstance(container, set) else container.pop(added)
    container.update(content)
    if not isinstance(container, set) and list(container) != list(content):
        container.clear()
        container.update(content)


def is_counted(tensor: Tensor) -> bool:
    """Whether torch counts the changes of `tensor`."""
    return not tensor.is_inference()


def below(modules: Iterable[Module]) -> list[Module]:
    """The modules and everything below them, each once."""
    memo: set[Module] = set()
    return [found for module in modules for _, found in module.named_modules(memo)]
