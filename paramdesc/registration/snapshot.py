"""The state of some modules, to be restored if a change to them fails."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from operator import is_not
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize as torch_engine

from paramdesc.registration.namespace import AttributeNamespace
from paramdesc.torch_internals.gathered import Places, gathered_into
from paramdesc.torch_internals.mode import has_numbers
from paramdesc.torch_internals.replacing import replace_data
from paramdesc.torch_internals.tensors import address, is_wrapper, memory_of

__all__ = ["Snapshot", "below", "differs", "split_tensors", "tensors_in"]


# what most attributes of modules are, so that few classes must be asked for their bases
_CONTAINERS = frozenset((dict, OrderedDict, set, AttributeNamespace))
_PLAIN = frozenset((bool, int, float, str, tuple, list, type(None)))


class Snapshot:
    """The present classes, attributes, tensors and hooks of modules, and data of tensors.

    Args:
        modules: the modules to restore, without their children unless these are listed too.
        tensors: tensors whose data may be replaced.
        written: tensors that may be written to in place, for example by a `right_inverse`. Their
            numbers are copied.
    """

    def __init__(
        self,
        modules: Iterable[Module],
        tensors: Collection[Tensor] = (),
        written: Iterable[Tensor] = (),
    ) -> None:
        self.states = [
            (module, type(module), vars(module), dict(vars(module))) for module in modules
        ]
        containers: list[Any] = [
            value.__wrapped__ if type(value) is AttributeNamespace else value
            for _, _, state, _ in self.states
            for value in state.values()
            if type(value) in _CONTAINERS
            or (type(value) not in _PLAIN and isinstance(value, (dict, set)))
        ]
        self.containers = [(value, value.copy()) for value in containers if value]
        self.empty = [value for value in containers if not value]
        # what is gathered stays in its memory, and is written to
        in_place = [x for x in tensors if gathered_into(x) is not None]
        self.tensors = [
            (x, x.detach(), Place(x))
            for x in tensors
            if is_counted(x) and not any(x is y for y in in_place)
        ]
        self.numbers = [(x, x.detach().clone()) for x in (*written, *in_place) if not is_lazy(x)]
        self.places = Places(module for module, *_ in self.states)

    def restore(self) -> None:
        """Restore everything in place: the same dicts, with the same objects in the same order."""
        for module, cls, state, attributes in self.states:
            if type(module) is not cls:
                module.__class__ = cls
            put_back(state, attributes)
        for container, content in self.containers:
            put_back(container, content)
        for container in self.empty:
            put_back(container, ())
        for tensor, before, place in self.tensors:
            if place.is_left():
                replace_data(tensor, before)
        for tensor, numbers in self.numbers:
            write_back(tensor, numbers)
        self.places.restore()


class Place:
    """The memory that a tensor has now."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.version, self.address = tensor._version, address(tensor)
        self.parts = memory_of(tensor) if is_wrapper(tensor) else None

    def is_left(self) -> bool:
        """Whether the tensor has other memory, or was written to if that can be told."""
        if self.parts is None or not is_wrapper(self.tensor):
            return self.tensor._version != self.version or address(self.tensor) != self.address
        # not replaced without need: torch cannot if a weak reference exists
        parts = memory_of(self.tensor)
        return len(parts) != len(self.parts) or any(map(is_not, parts, self.parts))


@torch.no_grad()
def write_back(tensor: Tensor, numbers: Tensor) -> None:
    """Write `numbers` to `tensor` if they differ, since a write of equal entries counts too."""
    if tensor.shape != numbers.shape or gathered_into(tensor) is not None:
        replace_data(tensor, numbers)
    elif differs(tensor, numbers):
        with torch.inference_mode(tensor.is_inference()), torch.no_grad():
            tensor.copy_(numbers)


@torch.no_grad()
def differs(tensor: Tensor, numbers: Tensor) -> bool:
    """Whether the numbers of `tensor` differ from `numbers`. NaN equals NaN here."""
    if tensor.shape != numbers.shape:
        return True
    if not has_numbers(tensor) or torch.equal(tensor, numbers):
        return False
    is_nan = (tensor != tensor) & (numbers != numbers)
    return bool(((tensor != numbers) & ~is_nan).any())


def put_back(container: Any, content: Any) -> None:
    """Make the dict or set hold `content` again, in its order.

    If the order is unchanged, no item is missing at any time: another thread may be reading.
    """
    for added in [key for key in container if key not in content]:
        container.discard(added) if isinstance(container, set) else container.pop(added)
    container.update(content)
    if not isinstance(container, set) and list(container) != list(content):
        container.clear()
        container.update(content)


def is_counted(tensor: Tensor) -> bool:
    """Whether torch counts the writes to `tensor`."""
    return not tensor.is_inference()


def split_tensors(chain: Module) -> tuple[list[Tensor], list[Tensor]]:
    """The originals of `chain`, and the tensors of its maps.

    Assignment replaces the data of originals; a `right_inverse` may write to tensors of its map.
    Originals that are parametrized themselves are split in the same way.
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
    found: dict[Module, None] = {}
    to_do = list(modules)
    while to_do:
        module = to_do.pop()
        if module not in found:
            found[module] = None
            if module._modules:  # a copy: another thread may add a map
                to_do += [x for x in tuple(module._modules.values()) if x is not None]
    return list(found)


def tensors_in(modules: Iterable[Module]) -> list[Tensor]:
    """The parameters and buffers of the modules themselves."""
    holders: Any = [holder for x in modules for holder in (x._parameters, x._buffers) if holder]
    return [x for holder in holders for x in holder.values() if x is not None]
