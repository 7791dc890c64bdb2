"""Places where a tensor or a number that a map uses can be bound, and how to replace it there."""

from __future__ import annotations

import collections
import functools
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

__all__ = ["MEMBERS", "PLACES", "UNSEEN", "Bound"]


@dataclass(frozen=True)
class Bound:
    """A map that multiplies by what is bound somewhere; `get` and `put` reach it there."""

    map: Callable[[Tensor], Any]
    get: Callable[[], Any]
    put: Callable[[Any], object]


def held(
    holder: Any, get: Callable[[Any], Any], put: Callable[[Any, Any], object] | None = None
) -> Bound:
    """A module that has `holder` as an attribute; without `put`, the attribute is replaced."""

    class Uses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.holder = holder

        def forward(self, X: Tensor) -> Any:
            return X * get(self.holder)

    uses = Uses()
    if put is None:
        return Bound(uses, lambda: get(uses.holder), functools.partial(setattr, uses, "holder"))
    return Bound(uses, lambda: get(holder), lambda new: put(holder, new))


def of_attribute(owner: Any, function: Callable[[Tensor], Any] | None = None) -> Bound:
    """What is the attribute `scale` of an object."""
    return Bound(
        owner if function is None else function,
        lambda: owner.scale,
        lambda new: setattr(owner, "scale", new),
    )


@dataclass
class Data:
    """A dataclass."""

    scale: Any


class Pair(NamedTuple):
    """A named tuple."""

    scale: Any
    other: int = 0


class Plain:
    """An object: a map by its method, or by being called."""

    def __init__(self, scale: Any) -> None:
        self.scale = scale

    def forward(self, X: Tensor) -> Any:
        return X * self.scale

    def __call__(self, X: Tensor) -> Any:
        return X * self.scale


class Property:
    """An object that gives what it holds through a property."""

    def __init__(self, scale: Any) -> None:
        self.inner = scale

    @property
    def scale(self) -> Any:
        return self.inner

    @scale.setter
    def scale(self, new: Any) -> None:
        self.inner = new

    def forward(self, X: Tensor) -> Any:
        return X * self.scale


class Slots:
    """An object without a dict."""

    __slots__ = ("scale",)

    def __init__(self, scale: Any) -> None:
        self.scale = scale


class Holding(nn.Module):
    """A module that is used, and is not a part of the map."""

    def __init__(self, scale: Any) -> None:
        super().__init__()
        if isinstance(scale, Tensor):
            self.register_buffer("scale", scale)
        else:
            self.scale = scale


class Table(dict[str, Any]):
    """A dict with a method, and with an attribute."""

    factor: Any = 1

    def times(self, X: Tensor) -> Any:
        return X * self["scale"]


class Scaled(list[Any]):
    """A list with an attribute."""

    scale: Any


def set_item(holder: Any, *keys: Any) -> Callable[[Any, Any], None]:
    """How to replace the last of `keys` in nested containers."""

    def put(outer: Any, new: Any) -> None:
        for key in keys:
            outer = outer[key]
        outer[holder] = new

    return put


def exchange(members: set[Any], new: Any) -> None:
    members.clear()
    members.add(new)


def in_closure(scale: Any) -> Bound:
    def put(new: Any) -> None:
        nonlocal scale
        scale = new

    return Bound(lambda X: X * scale, lambda: scale, put)


def in_closure_of_closure(scale: Any) -> Bound:
    inner = in_closure(scale)
    function = inner.map
    return Bound(lambda X: function(X), inner.get, inner.put)


def in_closure_over_list(scale: Any) -> Bound:
    scales = [[scale]]
    put = functools.partial(scales[0].__setitem__, 0)
    return Bound(lambda X: X * scales[0][0], lambda: scales[0][0], put)


def in_closure_over_module(scale: Any) -> Bound:
    module = Holding(scale)
    return of_attribute(module, lambda X: X * module.scale)


def in_closure_over_list_of_modules(scale: Any) -> Bound:
    modules = [Holding(scale)]
    return of_attribute(modules[0], lambda X: X * modules[0].scale)


def in_default(scale: Any) -> Bound:
    def function(X: Tensor, factor: Any = scale) -> Any:
        return X * factor

    def put(new: Any) -> None:
        function.__defaults__ = (new,)

    return Bound(function, lambda: (function.__defaults__ or ())[0], put)


def in_keyword_default(scale: Any) -> Bound:
    def function(X: Tensor, *, factor: Any = scale) -> Any:
        return X * factor

    defaults: Any = function.__kwdefaults__
    return Bound(
        function, lambda: defaults["factor"], lambda new: defaults.__setitem__("factor", new)
    )


def in_function_attribute(scale: Any) -> Bound:
    def function(X: Tensor) -> Any:
        return X * this.scale

    this: Any = function
    this.scale = scale
    return of_attribute(this)


def in_partial(scale: Any) -> Bound:
    function: Any = functools.partial(lambda X, factor: X * factor, factor=scale)
    keywords = function.keywords
    return Bound(
        function, lambda: keywords["factor"], lambda new: keywords.__setitem__("factor", new)
    )


def in_partial_over_list(scale: Any) -> Bound:
    scales = [scale]
    function: Any = functools.partial(lambda factors, X: X * factors[0], scales)
    return Bound(function, lambda: scales[0], lambda new: scales.__setitem__(0, new))


def in_method_of_builtin(scale: Any) -> Bound:
    scales = [scale]
    get = scales.__getitem__
    return Bound(
        lambda X: X * get(0),
        lambda: scales[0],
        lambda new: scales.__setitem__(0, new),
    )


def in_method_of_dict(scale: Any) -> Bound:
    table = Table(scale=scale)
    return Bound(table.times, lambda: table["scale"], lambda new: table.__setitem__("scale", new))


def in_attribute_of_list(scale: Any) -> Bound:
    scales = Scaled()
    scales.scale = scale
    return of_attribute(scales, lambda X: X * scales.scale)


GLOBAL: Any = 1.0


def times_global(X: Tensor) -> Any:
    return X * GLOBAL


class ByGlobal(nn.Module):
    """A module whose forward reads a global name."""

    def forward(self, X: Tensor) -> Any:
        return times_global(X)


def set_global(scale: Any) -> None:
    global GLOBAL
    GLOBAL = scale


def in_global(scale: Any, by: Callable[[Tensor], Any] = times_global) -> Bound:
    set_global(scale)
    return Bound(by, lambda: GLOBAL, set_global)


SETTINGS: Any = types.ModuleType("settings")
SETTINGS.inner = types.ModuleType("settings.inner")


def in_imported_module(scale: Any) -> Bound:
    SETTINGS.scale = scale
    return of_attribute(SETTINGS, lambda X: X * SETTINGS.scale)


def in_module_of_a_package(scale: Any) -> Bound:
    SETTINGS.inner.factor = scale
    return Bound(
        lambda X: X * SETTINGS.inner.factor,
        lambda: SETTINGS.inner.factor,
        lambda new: setattr(SETTINGS.inner, "factor", new),
    )


def in_module_in_a_closure(scale: Any) -> Bound:
    module: Any = types.ModuleType("settings")
    module.scale = scale
    return of_attribute(module, lambda X: X * module.scale)


def by_attribute(holder: Any) -> Bound:
    return held(holder, lambda h: h.scale, lambda h, new: setattr(h, "scale", new))


PLACES: dict[str, Callable[[Any], Bound]] = {
    "attribute": lambda s: held(s, lambda h: h),
    "attribute of an object that is a map": lambda s: of_attribute(Plain(s)),
    "list": lambda s: held([s], lambda h: h[0], set_item(0)),
    "list in a list": lambda s: held([[s]], lambda h: h[0][0], set_item(0, 0)),
    "dict in a dict": lambda s: held({1: {"a": s}}, lambda h: h[1]["a"], set_item("a", 1)),
    "list in a tuple": lambda s: held(([s],), lambda h: h[0][0], set_item(0, 0)),
    "set": lambda s: held({s}, lambda h: next(iter(h)), exchange),
    "ordered dict": lambda s: held(collections.OrderedDict(a=s), lambda h: h["a"], set_item("a")),
    "dict with defaults": lambda s: held(
        collections.defaultdict(int, a=s), lambda h: h["a"], set_item("a")
    ),
    "user dict": lambda s: held(collections.UserDict(a=s), lambda h: h["a"], set_item("a")),
    "attribute of a list": in_attribute_of_list,
    "dataclass": lambda s: by_attribute(Data(s)),
    "named tuple in a list": lambda s: held(
        [Pair(s)], lambda h: h[0].scale, lambda h, new: h.__setitem__(0, Pair(new))
    ),
    "plain object": lambda s: by_attribute(Plain(s)),
    "object in an object": lambda s: held(
        Plain(Plain(s)), lambda h: h.scale.scale, lambda h, new: setattr(h.scale, "scale", new)
    ),
    "slots": lambda s: by_attribute(Slots(s)),
    "namespace": lambda s: by_attribute(types.SimpleNamespace(scale=s)),
    "property": lambda s: by_attribute(Property(s)),
    "module in a list": lambda s: held(
        [Holding(s)], lambda h: h[0].scale, lambda h, new: setattr(h[0], "scale", new)
    ),
    "module": lambda s: by_attribute(Holding(s)),
    "closure": in_closure,
    "closure of a closure": in_closure_of_closure,
    "closure over a list": in_closure_over_list,
    "module in a closure": in_module_in_a_closure,
    "closure over a module": in_closure_over_module,
    "closure over a list of modules": in_closure_over_list_of_modules,
    "default": in_default,
    "keyword default": in_keyword_default,
    "attribute of a function": in_function_attribute,
    "partial": in_partial,
    "partial over a list": in_partial_over_list,
    "bound method": lambda s: of_attribute(owner := Plain(s), owner.forward),
    "callable object": lambda s: of_attribute(owner := Plain(s), owner.__call__),
    "method of a property's owner": lambda s: of_attribute(owner := Property(s), owner.forward),
    "method of a list": in_method_of_builtin,
    "method of a dict": in_method_of_dict,
    "global name": in_global,
    "imported module": in_imported_module,
    "module of an imported package": in_module_of_a_package,
    "global name that a module's forward reads": lambda s: in_global(s, ByGlobal()),
}
"""Here a replacement is noticed, and so is a write to a tensor."""


def in_class_attribute(scale: Any) -> Bound:
    class Uses(nn.Module):
        factor = scale

        def forward(self, X: Tensor) -> Any:
            return X * self.factor

    return Bound(Uses(), lambda: Uses.factor, lambda new: setattr(Uses, "factor", new))


def in_hook(scale: Any) -> Bound:
    def put(new: Any) -> None:
        nonlocal scale
        scale = new

    identity = nn.Identity()
    identity.register_forward_hook(lambda module, args, output: output * scale)
    return Bound(identity, lambda: scale, put)


def in_thread(scale: Any) -> Bound:
    local = threading.local()
    local.scale = scale
    return of_attribute(local, lambda X: X * local.scale)


UNSEEN: dict[str, Callable[[Any], Bound]] = {
    "deque": lambda s: held(collections.deque([s]), lambda h: h[0], set_item(0)),
    "thread-local": in_thread,
}
"""What is bound here cannot be looked into, so nothing that uses it outlives a block."""


def product(values: Any) -> Any:
    factor = 1.0
    for value in values:
        factor = factor * value
    return factor


MEMBERS: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any, Any], object]]] = {
    "list": ([], lambda h: h, lambda h, new: h.append(new)),
    "list in a list": ([[]], lambda h: h[0], lambda h, new: h[0].append(new)),
    "dict": ({}, lambda h: h.values(), lambda h, new: h.update({len(h): new})),
    "set": (set(), lambda h: h, lambda h, new: h.add(new)),
    "object": (Plain(1.0), lambda h: vars(h).values(), lambda h, new: setattr(h, "more", new)),
    "module": (
        nn.Module(),
        lambda h: h.buffers(),
        lambda h, new: h.register_buffer("more", new),
    ),
}
"""Something that holds members, how to go through them, and how to add one."""
