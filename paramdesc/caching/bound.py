"""What is bound to a chain: its tensors, and everything else that its maps can reach.

The walk follows attributes of modules and objects, containers, and the closures, defaults and
global names of functions. It reports whether it came to something that it cannot look into.
"""

from __future__ import annotations

import collections
import enum
import functools
import threading
import types
from contextlib import suppress
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.caching.functions import bindings_of, is_trusted, members_of, methods_of, vars_of
from paramdesc.caching.holders import Attributes, Cells, Items, Members, has_hidden_state, slots_of
from paramdesc.caching.watch import Place
from paramdesc.chain.chain import Chain
from paramdesc.chain.transient import transient_of
from paramdesc.torch_internals.module_call import (
    HOOKS,
    backward_hooks,
    backward_pre_hooks,
    forward_hooks,
    forward_pre_hooks,
)
from paramdesc.torch_internals.tensors import inner_tensors

__all__ = ["Bound"]

# the attributes that every module has. Maps do not read them, except for `training`
_MODULE_STATE = frozenset(vars(Module())) - {"training"}
_ALL_MODULES: tuple[Any, ...] = (
    forward_hooks,
    forward_pre_hooks,
    backward_hooks,
    backward_pre_hooks,
)
_HARMLESS_HOOKS = "torch.utils.module_tracker"
"""The module of torch whose hooks only record which module is running, to count operations."""
_PLAIN = (
    *(bool, int, float, complex, str, bytes, type(None), range, slice),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size),
)
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)
_METHODS = (*_FUNCTIONS, classmethod, staticmethod, property)
_BUILTIN = (
    *(types.BuiltinFunctionType, types.MethodWrapperType, types.MethodDescriptorType),
    *(types.WrapperDescriptorType, types.ClassMethodDescriptorType),
)
_CONTAINERS = (list, tuple, dict, set, frozenset)
_KNOWN_CONTAINERS = (*_CONTAINERS, collections.OrderedDict, collections.defaultdict, torch.Size)
_OPAQUE = (
    *(types.CodeType, types.GetSetDescriptorType, types.MemberDescriptorType),
    *(type(Place.holder), functools._lru_cache_wrapper),
)
"""Types that hold nothing, or nothing that is not watched elsewhere."""
_MOST = 500
"""The most places that are watched. More belong to a model or a data set, not to a map."""


class Bound:
    """What is bound to one chain now, its own originals first.

    - `spots` lists the places of tensors, each with the type of the tensor, and `places` the
      places of everything else. A place is a holder and a key; its content may be replaced.
    - `counted` lists containers whose length is watched, `empty` those that are empty.
    - `watched` has the places, the counted containers with their lengths, and the empty ones.
    - `is_foreign`: code from outside this library and torch takes part in the evaluation. It may
      use tensors that are not bound to the chain.
    - `is_known` is False if the walk came to something that it cannot look into.
    - `alike` is for the chains that can be evaluated together with others.

    Args:
        chain: where the walk begins.
        closely: include the attributes of tensors and functions, for values that are kept long.
    """

    def __init__(self, chain: Chain, closely: bool = False) -> None:
        self.closely = closely
        self.spots: list[tuple[Any, Any, type]] = []
        self.places: list[Place] = []
        self.counted: list[Any] = []
        self.empty: list[Any] = []
        self.is_foreign = False
        self.is_known = True
        self.alike: Any = ...  # not looked for yet
        self.is_reusable = True  # False if only another walk can tell what is bound
        self._maps = chain._modules, dict(chain._modules)
        self._seen: dict[int, Any] = {}  # by identity; holds the objects, so that none is freed
        self._to_do: list[tuple[Any, Any, Any]] = []
        # replicas of nn.DataParallel have their tensors in vars(chain)
        for holder in (chain._parameters, chain._buffers, vars(chain)):
            for name, value in list(holder.items()):
                if isinstance(value, Tensor):
                    self._add_tensor(holder, name, value)
        for name in HOOKS:
            self._add_hooks(vars(chain)[name])
        for hooks in _ALL_MODULES:
            self._add_hooks(hooks)
        self._seen[id(chain)] = chain
        try:
            for module in chain.modules():
                self._add_module(module)
            while self._to_do and self._has_room():
                self._look_at(*self._to_do.pop())
        except Exception:  # objects may raise anything when they are inspected
            self.is_known = False
        self._to_do.clear()
        self._seen.clear()
        # plain tuples: unpacking a named one takes twice as long
        self.watched = (
            [tuple(place) for place in self.places],
            [(container, len(container)) for container in self.counted],
            tuple(self.empty),
        )

    @classmethod
    def of(cls, chain: Chain, closely: bool = False) -> Bound:
        """What is bound to `chain`: the last walk while it is current, otherwise a new one."""
        transient = transient_of(chain)
        known: Bound | None = transient.bound and transient.bound()
        if known is None or known.closely < closely or not known.is_current():
            known = cls(chain, closely)
            # objects of the user must not be kept alive longer than a cached value needs them
            hold: Any = ref(known) if known.is_foreign else functools.partial(cls._itself, known)
            transient.bound = hold if known.is_reusable else None
        return known

    @staticmethod
    def _itself(bound: Bound) -> Bound:
        return bound

    def is_current(self) -> bool:
        """Whether another walk would find the same, apart from the tensors."""
        now, then = self._maps
        places, lengths, empty = self.watched
        try:
            if now != then or any(empty):
                return False
            for holder, key, value in places:
                if holder[key] is not value:
                    return False
            for container, length in lengths:
                if len(container) != length:
                    return False
            for holder, key, kind in self.spots:
                if type(holder[key]) is not kind:
                    return False
        except LookupError:
            return False
        return True

    def tensors(self) -> list[Place]:
        """The tensors, with the places where they are."""
        return [Place(holder, key, holder[key]) for holder, key, _ in self.spots]

    def _has_room(self) -> bool:
        if len(self.places) + len(self.spots) + len(self.counted) <= _MOST:
            return True
        self.is_known = False
        return False

    def _add_tensor(self, holder: Any, key: Any, tensor: Tensor) -> None:
        self.spots.append((holder, key, type(tensor)))
        if self.closely:
            state = tensor.__dict__
            self._to_do += [(state, name, state[name]) for name in state if "_dynamo" not in name]
        for name in inner_tensors(tensor):
            self.is_foreign, self.is_reusable = True, False
            self._add_tensor(Attributes(tensor), name, getattr(tensor, name))

    def _add_hooks(self, hooks: Any) -> None:
        if not hooks:
            self.empty.append(hooks)
            return
        self.counted.append(hooks)
        for key, hook in list(hooks.items()):
            # not its closure: most hooks use that to count their calls
            self.places.append(Place(hooks, key, hook))
            self.is_foreign |= getattr(hook, "__module__", None) != _HARMLESS_HOOKS

    def _add_module(self, module: Module) -> None:
        if id(module) in self._seen:
            return
        self._seen[id(module)] = module
        state: Any = vars(module)
        for name in HOOKS:
            self._add_hooks(state[name])
        is_chain = isinstance(module, Chain)  # the chain of an original that is parametrized
        self.is_foreign |= is_chain or "forward" in state or not is_trusted(type(module))
        self.is_known &= not isinstance(module, torch.jit.ScriptModule)
        for name in ("_parameters", "_buffers", "_modules"):
            self._add_children(state[name])
        if is_chain:
            self.places.append(Place(state, "training", state["training"]))
            return
        self.counted.append(state)  # a new attribute may hide a class attribute
        self._to_do += [(state, name, state[name]) for name in state.keys() - _MODULE_STATE]
        self._add_class(type(module))

    def _add_children(self, children: Any) -> None:
        if not children:
            self.empty.append(children)
            return
        self.counted.append(children)
        for name, child in list(children.items()):
            if isinstance(child, Tensor):
                self._add_tensor(children, name, child)
            else:
                self.places.append(Place(children, name, child))
                if child is not None:
                    self._to_do.append((None, name, child))

    def _add_class(self, cls: type) -> None:
        """Add what the methods of a class read, and the members of the class."""
        if is_trusted(cls) or id(cls) in self._seen:
            return
        self._seen[id(cls)] = cls
        for function in methods_of(cls):
            self._to_do += list(bindings_of(function, self.closely))
        for holder, name, member in members_of(cls):
            is_method = type(member) in _METHODS
            if is_method or not name.startswith("__"):
                self.places.append(Place(holder, name, member))
                self._to_do += [] if is_method else [(None, name, member)]
        self.counted += [vars_of(base) for base in type.mro(cls) if not is_trusted(base)]

    def _look_at(self, holder: Any, key: Any, value: Any) -> None:
        """Add `value`, which is `holder[key]`, and what can be reached from it."""
        kind = type(value)
        if issubclass(kind, Tensor):
            self._add_tensor({key: value} if holder is None else holder, key, value)
            return
        if holder is not None:
            self.places.append(Place(holder, key, value))
        if kind in _PLAIN or issubclass(kind, enum.Enum) or id(value) in self._seen:
            return
        if issubclass(kind, Module):
            self.is_foreign = True  # it is not below the chain, so nothing else watches it
            self._add_module(value)
            return
        self._seen[id(value)] = value
        if issubclass(kind, _CONTAINERS):
            self._look_into(value)
        elif kind in _FUNCTIONS:
            self.is_foreign |= not is_trusted(value)
            self._to_do += list(bindings_of(value, self.closely))
        elif issubclass(kind, _BUILTIN):
            owner = getattr(value, "__self__", None)
            if not isinstance(owner, (type, types.ModuleType)):
                self._to_do.append((None, key, owner))
        elif issubclass(kind, type):
            del self._seen[id(value)]
            self._add_class(value)
        elif kind is types.ModuleType:
            # if a function names the module, the names that it reads there are watched one by one
            is_named = isinstance(holder, Cells) or (type(holder) is dict and "__name__" in holder)
            self.is_known &= is_named or is_trusted(value)
        elif not (issubclass(kind, _OPAQUE) or is_coordinating(kind)):
            self.is_foreign = True
            self.is_known &= not has_hidden_state(kind)
            self._look_at_attributes(value)

    def _look_into(self, container: Any) -> None:
        kind = type(container)
        if len(container) > _MOST:
            self.is_known = False
            return
        holder: Any = container
        if issubclass(kind, (set, frozenset)):
            holder = Members(container)
            items: Any = enumerate(holder.listed)
        elif issubclass(kind, dict):
            holder = container if kind is dict else Items(container, dict)
            items = list(dict.items(container))
        else:
            base: Any = list if issubclass(kind, list) else tuple
            holder = container if kind is base else Items(container, base)
            items = enumerate(base.__iter__(container))
        if not issubclass(kind, (tuple, frozenset)):
            self.counted.append(container)
        self._to_do += [(holder, key, value) for key, value in items]
        if kind not in _KNOWN_CONTAINERS:
            self._look_at_attributes(container)

    def _look_at_attributes(self, value: Any) -> None:
        kind, state = type(value), getattr(value, "__dict__", None)
        if type(state) is dict:
            self.counted.append(state)
            self._to_do += [(state, name, attribute) for name, attribute in list(state.items())]
        slots = Attributes(value)
        for name in slots_of(kind):
            with suppress(KeyError):
                self._to_do.append((slots, name, slots[name]))
                continue
            self.is_known = False  # the empty slot may be filled later
        self._add_class(kind)


def is_coordinating(cls: type) -> bool:
    """Whether its objects decide when or how a value is made, but not which value.

    Locks and events do, and Dynamo with all that it knows of a compiled function.
    """
    if cls.__module__ in ("threading", "_thread"):
        return not issubclass(cls, threading.local)
    return cls.__module__.startswith("torch._dynamo.")
