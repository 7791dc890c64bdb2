"""What is bound to a chain: its tensors, and everything else that its maps can reach.

The walk follows attributes of modules and objects, containers, and what functions are closed over,
default to and read from their global names. What it cannot look into it reports.
"""

from __future__ import annotations

import enum
import functools
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)

from paramdesc.caching.holders import (
    Attributes,
    Cells,
    Members,
    has_hidden_state,
    slots_of,
)
from paramdesc.caching.watch import Place
from paramdesc.chain.chain import Chain
from paramdesc.chain.transient import transient_of
from paramdesc.torch_internals.tensors import inner_tensors

__all__ = ["Bound"]

# what every module has, none of it read by a map; its training flag is read
_MODULE_STATE = frozenset(vars(Module())) - {"training"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS: tuple[Any, ...] = (
    _global_forward_hooks,
    _global_forward_pre_hooks,
    _global_backward_hooks,
    _global_backward_pre_hooks,
)
_PLAIN = (
    *(bool, int, float, complex, str, bytes, type(None), range, slice, enum.Enum),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size),
)
_CONTAINERS = (list, tuple, dict, set, frozenset)
_BUILTIN = (types.BuiltinFunctionType, types.MethodWrapperType, types.MethodDescriptorType)
_TRUSTED = frozenset({"paramdesc", "torch", "numpy", *sys.stdlib_module_names})
"""Where functions and classes depend on nothing but what is bound to them."""
_COORDINATING = frozenset({"threading", "_thread"})
"""Locks and events: they say when a value is made, and not which."""
_DERIVED = functools._lru_cache_wrapper
"""What it remembers follows from the function in it."""
_HARMLESS_HOOKS = "torch.utils.module_tracker"
"""Where the hooks stand that only watch which module runs, to count operations by module."""
_MOST = 4000
"""How many objects are looked at: more is a model, and no longer a map."""


class Bound:
    """What is bound to one chain now, its own originals first.

    - `tensors` and `places` may be replaced, `counted` and `empty` may grow.
    - `is_foreign` tells that code outside of this library and torch has a part in a value, which
      may use tensors that are bound nowhere.
    - `is_known` is False where something was found that the walk cannot look into.

    Args:
        closely: whether to count also what is added to tensors and modules that are there, for a
            value that is kept for long.
    """

    def __init__(self, chain: Chain, closely: bool = False) -> None:
        self.closely = closely
        self.tensors: list[Place] = []
        self.places: list[Place] = []
        self.counted: list[Any] = []
        self.empty: list[Any] = []
        self.is_foreign = False
        self.is_known = True
        self.is_lasting = True  # whether another walk finds the same while `is_current` says so
        self._children = chain._modules
        self._maps = dict(chain._modules)
        self._filled: list[Any] = [chain._parameters, chain._buffers]  # another walk counts them
        self._seen: set[int] = set()
        self._kept: list[Any] = []  # what was made on the way: no identity is given out again
        for holder in (chain._parameters, chain._buffers, vars(chain)):  # the last in a replica
            for name, value in list(holder.items()):
                if isinstance(value, Tensor):
                    self.add_tensor(Place(holder, name, value))
        for module in chain.modules():
            self.add_module(module, is_root=module is chain)
        for hooks in GLOBAL_HOOKS:
            self.add_hooks(hooks)

    @classmethod
    def of(cls, chain: Chain, closely: bool = False) -> Bound:
        """What is bound to `chain`: by the last walk while it holds, else by another one."""
        transient = transient_of(chain)
        known: Bound | None = transient.bound
        if known is None or known.closely < closely or not known.is_current():
            known = cls(chain, closely)
            known.forget_tensors()
            if known.is_lasting:
                transient.bound = known
        return known

    def forget_tensors(self) -> None:
        """Keep where the tensors are, and let go of them."""
        self.spots = [(holder, key, type(tensor)) for holder, key, tensor in self.tensors]
        self.sizes = list(map(len, self.counted))
        self._filled_sizes = list(map(len, self._filled))
        self.tensors.clear()

    def is_current(self) -> bool:
        """Whether another walk would find the same, the tensors apart."""
        try:
            return (
                self._children == self._maps
                and all(holder[key] is value for holder, key, value in self.places)
                and list(map(len, self.counted)) == self.sizes
                and list(map(len, self._filled)) == self._filled_sizes
                and not any(self.empty)
                and all(type(holder[key]) is kind for holder, key, kind in self.spots)
            )
        except LookupError:
            return False

    def tensors_now(self) -> list[Place]:
        """The tensors, with the places where they are."""
        return [Place(holder, key, holder[key]) for holder, key, _ in self.spots]

    def add_tensor(self, place: Place) -> None:
        self.tensors.append(place)
        inner = inner_tensors(place.value)
        for name in inner:
            self.is_foreign, self.is_lasting = True, False
            self.add_tensor(Place(Attributes(place.value), name, getattr(place.value, name)))

    def add_module(self, module: Module, is_root: bool = False) -> None:
        if id(module) in self._seen:
            return
        self._seen.add(id(module))
        state: Any = vars(module)
        for name in _HOOKS:
            self.add_hooks(state[name])
        if is_root:
            return
        is_chain = isinstance(module, Chain)  # an original is parametrized itself
        self.is_foreign |= is_chain or "forward" in state or not is_trusted(type(module))
        for name in ("_parameters", "_buffers", "_modules"):
            self.add_children(state[name])
        names = ["training"] if is_chain else list(state.keys() - _MODULE_STATE)
        if not is_chain:
            self.counted.append(state)  # a new attribute may hide one of the class
        for name in names:
            if name in state:
                self.look_at(state, name, state[name])
        if not is_trusted(type(module)):
            self.look_at_class(type(module))

    def add_hooks(self, hooks: Any) -> None:
        if not hooks:
            self.empty.append(hooks)
            return
        self.counted.append(hooks)
        for key, hook in list(hooks.items()):
            # what a hook is closed over mostly counts its calls, and is told by nothing but a look
            self.places.append(Place(hooks, key, hook))
            self.is_foreign |= getattr(hook, "__module__", None) != _HARMLESS_HOOKS

    def add_children(self, children: Any) -> None:
        if not children:
            self.empty.append(children)
            return
        self._filled.append(children)
        if self.closely:
            self.counted.append(children)
        for name, child in list(children.items()):
            if isinstance(child, Tensor):
                self.add_tensor(Place(children, name, child))
            else:
                self.places.append(Place(children, name, child))

    def look_at(self, holder: Any, key: Any, value: Any) -> None:
        """Take in what `holder[key]` is, and what can be reached from it."""
        if isinstance(value, Tensor):
            self.add_tensor(Place({key: value} if holder is None else holder, key, value))
            return
        if holder is not None:
            self.places.append(Place(holder, key, value))
        if isinstance(value, _PLAIN) or id(value) in self._seen:
            return
        if len(self._seen) > _MOST:
            self.is_known = False
            return
        if isinstance(value, Module):
            self.is_foreign = True  # it is no part of the chain: nothing else tells of it
            self.add_module(value)
            return
        self._seen.add(id(value))
        self._kept.append(value)
        if isinstance(value, _CONTAINERS):
            self.look_into(value)
        elif isinstance(value, type):
            self.look_at_class(value)
        elif isinstance(value, types.ModuleType):
            self.is_known &= root_of(value.__name__) in _TRUSTED
        elif isinstance(value, _BUILTIN):
            owner = getattr(value, "__self__", None)
            if not isinstance(owner, (types.ModuleType, type)):
                self.look_at(None, key, owner)
        elif callable(value) and look_inside(value):
            for place in look_inside(value):
                self.look_at(*place)
            self.is_foreign |= not is_trusted(value)
        else:
            self.look_at_object(value)

    def look_into(self, container: Any) -> None:
        holder: Any = container
        if isinstance(container, (set, frozenset)):
            holder = Members(container)
            container_items: Any = enumerate(holder.listed)
        else:
            container_items = container if isinstance(container, dict) else enumerate(container)
        if not isinstance(container, (tuple, frozenset)):
            self.counted.append(container)
        for key, value in dict(container_items).items():
            self.look_at(holder, key, value)
        if type(container) not in _CONTAINERS:
            self.look_at_attributes(container)

    def look_at_object(self, value: Any) -> None:
        cls = type(value)
        if root_of(cls.__module__) in _COORDINATING and not isinstance(value, threading.local):
            return
        self.is_foreign = True
        self.is_known &= not has_hidden_state(cls) or cls is _DERIVED
        self.look_at_attributes(value)

    def look_at_attributes(self, value: Any) -> None:
        cls, state = type(value), getattr(value, "__dict__", None)
        if type(state) is dict:
            self.counted.append(state)
            for name, attribute in list(state.items()):
                self.look_at(state, name, attribute)
        attributes = Attributes(value)
        for name in slots_of(cls):
            if hasattr(value, name):
                self.look_at(attributes, name, attributes[name])
            else:  # it may be given one
                self.is_known = False
        if not is_trusted(cls):
            self.look_at_class(cls)

    def look_at_class(self, cls: type) -> None:
        """Take in the global names that the methods of a class read."""
        for base in cls.__mro__:
            if is_trusted(base) or id(base) in self._seen:
                continue
            self._seen.add(id(base))
            for member in list(vars(base).values()):
                function = getattr(member, "__func__", getattr(member, "fget", member))
                if isinstance(function, types.FunctionType):
                    for place in look_inside(function):
                        self.look_at(*place)


def look_inside(function: Callable[..., Any]) -> list[tuple[Any, Any, Any]]:
    """What is bound to a function, method or partial: where, under which name, and what."""
    if isinstance(function, types.MethodType):
        return [(None, None, function.__self__), (None, None, function.__func__)]
    if isinstance(function, functools.partial):
        return [(None, None, part) for part in (function.func, function.args, function.keywords)]
    if not isinstance(function, types.FunctionType):
        return []
    if is_trusted(function):
        return [(None, None, None)]
    return list(bindings_of(function))


def bindings_of(function: types.FunctionType) -> Iterator[tuple[Any, Any, Any]]:
    attributes = Attributes(function)
    yield attributes, "__defaults__", function.__defaults__
    yield attributes, "__kwdefaults__", function.__kwdefaults__
    yield attributes, "__dict__", function.__dict__
    cells = Cells(function.__closure__ or ())
    for number in range(len(cells.cells)):
        with suppress(KeyError):  # it is not bound yet
            yield cells, number, cells[number]
    for name in names_in(function.__code__):
        if name in function.__globals__:
            yield function.__globals__, name, function.__globals__[name]


def names_in(code: types.CodeType) -> tuple[str, ...]:
    """The names that `code` and the functions defined in it look up, global ones among them."""
    inner = [names_in(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    return tuple(dict.fromkeys([*code.co_names, *(name for names in inner for name in names)]))


def is_trusted(thing: Any) -> bool:
    """Whether a class or function is of this library or torch, or of a module as harmless."""
    return root_of(getattr(thing, "__module__", None)) in _TRUSTED


def root_of(name: Any) -> str:
    return name.partition(".")[0] if isinstance(name, str) else ""
