"""What is bound to a function or class: closures, defaults, global names and members."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from paramdesc.caching.holders import Attributes, Cells

__all__ = ["Binding", "bindings_of", "is_trusted", "members_of", "methods_of", "vars_of"]

Binding = tuple[Any, Any, Any]
"""A holder (None if its content cannot be replaced), a key, and the bound object."""

_TRUSTED = frozenset({"paramdesc", "torch", "numpy", *sys.stdlib_module_names})
"""Packages whose functions and classes depend on nothing besides what is bound to them."""


def is_trusted(thing: Any) -> bool:
    """Whether a class, function or module is part of paramdesc, torch, NumPy or Python."""
    name = thing.__name__ if type(thing) is types.ModuleType else getattr(thing, "__module__", None)
    return root_of(name) in _TRUSTED


def root_of(name: Any) -> str:
    return name.partition(".")[0] if isinstance(name, str) else ""


def bindings_of(function: Any, closely: bool = False) -> Iterator[Binding]:
    """What is bound to a function, method or `functools.partial`.

    With `closely`, also its code, and attributes that are empty.
    """
    kind = type(function)
    if kind is types.MethodType:
        yield None, "__self__", function.__self__
        yield None, "__func__", function.__func__
    elif kind is functools.partial:
        yield None, "func", function.func
        yield None, "args", function.args
        yield None, "keywords", function.keywords
        yield None, "__dict__", function.__dict__
    elif kind is types.FunctionType and not is_trusted(function):
        attributes = Attributes(function)
        for name in ("__code__", "__defaults__", "__kwdefaults__", "__dict__"):
            thing = attributes[name]
            if closely or (thing and name != "__code__"):
                yield attributes, name, thing
        cells = Cells(function.__closure__ or ())
        for number in range(len(cells.cells)):
            with suppress(KeyError):
                yield cells, number, cells[number]
                yield from names_read_in(cells[number], names_in(function.__code__), set())
        if root_of(function.__globals__.get("__name__")) not in _TRUSTED:
            yield from names_read_by(function)  # otherwise it is, for example, a decorator of torch


def names_read_by(function: types.FunctionType) -> Iterator[Binding]:
    """The global names that a function reads, also in modules: `scale`, or `settings.scale`."""
    names, found = names_in(function.__code__), function.__globals__
    for name in names:
        if name not in found:
            continue
        value = found[name]
        yield found, name, value
        yield from names_read_in(value, names, set())


def names_read_in(module: Any, names: Iterable[str], seen: set[int]) -> Iterator[Binding]:
    """Those of `names` that a Python module of the user has, and modules inside it."""
    if type(module) is not types.ModuleType or is_trusted(module) or id(module) in seen:
        return
    seen.add(id(module))
    state = vars(module)
    for name in names:
        if name in state:
            yield state, name, state[name]
            yield from names_read_in(state[name], names, seen)


def names_in(code: types.CodeType) -> tuple[str, ...]:
    """The global and attribute names used in `code` and in the functions defined inside it."""
    inner = [names_in(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    return tuple(dict.fromkeys([*code.co_names, *(name for names in inner for name in names)]))


def methods_of(cls: type) -> Iterator[types.FunctionType]:
    """The functions among the members of a class and its bases, except for trusted classes."""
    for _, _, member in members_of(cls):
        for function in (member, *map(member_function, ("__func__", "fget"), (member, member))):
            if type(function) is types.FunctionType:
                yield function


def member_function(name: str, member: Any) -> Any:
    """The function of a class method, static method or property."""
    is_wrapper = type(member) in (classmethod, staticmethod, property)
    return getattr(member, name, None) if is_wrapper else None


def members_of(cls: type) -> Iterator[Binding]:
    """The members of a class and its bases, except for trusted classes."""
    for base in type.mro(cls):
        if not is_trusted(base):
            state = vars_of(base)
            yield from ((state, name, member) for name, member in list(state.items()))


def vars_of(cls: type) -> Any:
    """The members of a class itself, whatever its metaclass answers."""
    return type.__dict__["__dict__"].__get__(cls)
