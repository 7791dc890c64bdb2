"""All or nothing: the state of some modules, to be put back if a change to them fails."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize as torch_engine

from paramdesc.registration.namespace import AttributeNamespace
from paramdesc.torch_internals.mode import has_numbers
from paramdesc.torch_internals.tensors import address, is_wrapper, replace_data

__all__ = ["Snapshot", "below", "differs", "split_tensors"]


class Snapshot:
    """The classes, attributes, tensors and hooks of modules, and the data of tensors, as they are.

    Args:
        modules: those whose own state is kept: name a child to include it.
        tensors: those that may be given other data.
        written: those that may be written in place, by a `right_inverse` say. Their numbers
            are copied.
    """

    def __init__(
        self,
        modules: Iterable[Module],
        tensors: Iterable[Tensor] = (),
        written: Iterable[Tensor] = (),
    ) -> None:
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
        self.numbers = [(x, x.detach().clone()) for x in written if not is_lazy(x)]

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
        for tensor, numbers in self.numbers:
            write_back(tensor, numbers)


@torch.no_grad()
def write_back(tensor: Tensor, numbers: Tensor) -> None:
    """Let `tensor` have these numbers. Equal ones are not written: that would count as a change."""
    if tensor.shape != numbers.shape:
        replace_data(tensor, numbers)
    elif differs(tensor, numbers):
        with torch.inference_mode(tensor.is_inference()), torch.no_grad():
            tensor.copy_(numbers)


@torch.no_grad()
def differs(tensor: Tensor, numbers: Tensor) -> bool:
    """Whether `tensor` has other numbers, `.data` written to it say. NaN is equal to NaN here."""
    if tensor.shape != numbers.shape:
        return True
    if not has_numbers(tensor) or torch.equal(tensor, numbers):
        return False
    is_nan = (tensor != tensor) & (numbers != numbers)
    return bool(((tensor != numbers) & ~is_nan).any())


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


def split_tensors(chain: Module) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of `chain`: originals, which assignment gives other data, and those of its maps,
    which a `right_inverse` may write in place. Chains of originals are split alike.
    """
    replaced: list[Tensor] = []
    written: list[Tensor] = []
    for module in chain.modules():
        found = replaced if isinstance(module, torch_engine.ParametrizationList) else written
        found.extend(module.parameters(recurse=False))
        found.extend(module.buffers(recurse=False))
    return replaced, written


def below(modules: Iterable[Module]) -> list[Module]:
    """The modules and everything below them, each once."""
    memo: set[Module] = set()
    return [found for module in modules for _, found in module.named_modules(memo)]
