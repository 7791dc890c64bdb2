"""A kept value depends on members of classes, attributes of functions, and settings."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.caching.dependencies.kinds import KINDS, LASTING, weighing
from tests.helpers import original_of


class Change(NamedTuple):
    """A map, and what makes its value four times as large."""

    map: Any
    make: Callable[[], object]


def module_class() -> Any:
    """A new class of maps, which no other test has changed."""

    class Base(nn.Module):
        inherited = 1.0

    class Map(Base):
        scale = 1.0
        tensor = torch.tensor(1.0)
        config: ClassVar[dict[str, Any]] = {"scale": 1.0, "inner": [1.0]}

        def forward(self, X: Tensor) -> Any:
            factor = self.scale * self.tensor * self.config["scale"] * self.config["inner"][0]
            return X * factor * self.inherited * self.method() * self.prop * self.of_class()

        def method(self) -> float:
            return 1.0

        @property
        def prop(self) -> float:
            return 1.0

        @classmethod
        def of_class(cls) -> float:
            return cls.static()

        @staticmethod
        def static() -> float:
            return 1.0

    return Map


MEMBERS: dict[str, Callable[[Any], object]] = {
    "number": lambda cls: setattr(cls, "scale", 4.0),
    "tensor written to": lambda cls: cls.tensor.mul_(4),
    "tensor replaced": lambda cls: setattr(cls, "tensor", torch.tensor(4.0)),
    "dict entry": lambda cls: cls.config.update(scale=4.0),
    "item of a list in a dict": lambda cls: cls.config["inner"].__setitem__(0, 4.0),
    "dict replaced": lambda cls: setattr(cls, "config", {"scale": 4.0, "inner": [1.0]}),
    "member of a base": lambda cls: setattr(cls.__bases__[0], "inherited", 4.0),
    "member that hides one of a base": lambda cls: setattr(cls, "inherited", 4.0),
    "method": lambda cls: setattr(cls, "method", lambda self: 4.0),
    "property": lambda cls: setattr(cls, "prop", property(lambda self: 4.0)),
    "class method": lambda cls: setattr(cls, "of_class", classmethod(lambda cls: 4.0)),
    "static method": lambda cls: setattr(cls, "static", staticmethod(lambda: 4.0)),
    "forward": lambda cls: setattr(cls, "forward", lambda self, X: 4 * X),
}


class Uses(nn.Module):
    """A map that calls the `forward` of what it holds."""

    def __init__(self, held: Any, get: Callable[[Any], Any] = lambda held: held) -> None:
        super().__init__()
        self.held = held
        self.get = get

    def forward(self, X: Tensor) -> Any:
        return self.get(self.held).forward(X)


def plain_class() -> Any:
    """As `module_class`, of objects that are no modules."""
    base, of_maps = type("Base", (), {"inherited": 1.0}), module_class()
    members = {name: thing for name, thing in vars(of_maps).items() if name[:2] != "__"}
    return type("Plain", (base,), {**members, "__module__": __name__})


def in_closure() -> tuple[Any, Any]:
    cls = plain_class()
    held = cls()
    return cls, lambda X: held.forward(X)


def of_class(make: Callable[[], Any], hold: Callable[[Any], Any]) -> Callable[[], tuple[Any, Any]]:
    def made() -> tuple[Any, Any]:
        cls = make()
        return cls, hold(cls)

    return made


HOLDERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "the map": of_class(module_class, lambda cls: cls()),
    "child": of_class(module_class, lambda cls: Uses(cls())),
    "object": of_class(plain_class, lambda cls: Uses(cls())),
    "object in a list": of_class(plain_class, lambda cls: Uses([cls()], lambda held: held[0])),
    "module in a list": of_class(module_class, lambda cls: Uses([cls()], lambda held: held[0])),
    "the class": of_class(plain_class, lambda cls: Uses(cls, lambda held: held())),
    "object in a closure": in_closure,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_change_of_a_class_is_noticed(holder: str, member: str, kind: str) -> None:
    cls, parametrization = HOLDERS[holder]()
    layer = weighing(parametrization)
    with KINDS[kind](layer) as read:
        before = read()
        assert read() is before
        with torch.inference_mode(False):
            MEMBERS[member](cls)
        expected = 4 * original_of(layer).detach()
        torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)


def called_class() -> Any:
    class Called:
        def __call__(self, X: Tensor) -> Tensor:
            return X

        def __getitem__(self, key: str) -> float:
            return 1.0

        def __getattr__(self, name: str) -> float:
            return 1.0

        def __float__(self) -> float:
            return 1.0

    return Called


class UsesSpecial(nn.Module):
    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held

    def forward(self, X: Tensor) -> Any:
        return self.held(X) * self.held["a"] * self.held.scale * float(self.held)


SPECIAL: dict[str, Callable[..., Any]] = {
    "__call__": lambda self, X: 4 * X,
    "__getitem__": lambda self, key: 4.0,
    "__getattr__": lambda self, name: 4.0,
    "__float__": lambda self: 4.0,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SPECIAL)
def test_a_special_method_that_is_replaced_is_noticed(name: str, kind: str) -> None:
    cls = called_class()
    layer = weighing(UsesSpecial(cls()))
    with KINDS[kind](layer) as read:
        read()
        setattr(cls, name, SPECIAL[name])
        expected = 4 * original_of(layer).detach()
        torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)


# attributes of what is no object of the user's


class Scales(dict[str, Any]):
    scale: Any


class Names(list[Any]):
    scale: Any


class Unique(set[Any]):
    scale: Any


class Pair(tuple[Any, ...]):
    scale: Any


class Number(float):
    scale: Any


class Text(str):
    scale: Any


def times_attribute(X: Tensor) -> Any:
    return X * vars(times_attribute)["scale"]


def attribute_of(owner: Any) -> Change:
    owner.scale = 1.0
    return Change(Reads(owner), lambda: setattr(owner, "scale", 4.0))


class Reads(nn.Module):
    def __init__(self, owner: Any) -> None:
        super().__init__()
        self.owner = owner

    def forward(self, X: Tensor) -> Any:
        return X * self.owner.scale


def of_function() -> Change:
    def times(X: Tensor) -> Any:
        return X * times.scale  # type: ignore[attr-defined]

    return Change(times, attribute_of(times).make)


def of_global_function() -> Change:
    return Change(times_attribute, attribute_of(times_attribute).make)


def of_wrapped_function() -> Change:
    inner = of_function()

    @functools.wraps(inner.map)
    def outer(X: Tensor) -> Any:
        return inner.map(X)

    return Change(outer, inner.make)


def of_partial() -> Change:
    return attribute_of(functools.partial(abs))


class Settings:
    """What a program sets in one place for all."""

    def __init__(self) -> None:
        self.scale = 1.0
        self.more = {"scale": 1.0}


SETTINGS = Settings()
MODULE = types.ModuleType("tests.settings_of_this_test")


def by_settings(X: Tensor) -> Any:
    return X * SETTINGS.scale * SETTINGS.more["scale"]


def by_module(X: Tensor) -> Any:
    return X * MODULE.scale * MODULE.more["scale"]


def settings(by: Any, holder: Any, change: Callable[[], object]) -> Change:
    holder.scale, holder.more = 1.0, {"scale": 1.0}
    return Change(by, change)


def replace_settings() -> None:
    global SETTINGS
    SETTINGS = Settings()
    SETTINGS.scale = 4.0


OWNERS: dict[str, Callable[[], Change]] = {
    "dict": lambda: attribute_of(Scales()),
    "list": lambda: attribute_of(Names()),
    "set": lambda: attribute_of(Unique()),
    "tuple": lambda: attribute_of(Pair()),
    "number": lambda: attribute_of(Number()),
    "string": lambda: attribute_of(Text()),
    "function": of_function,
    "global function": of_global_function,
    "wrapped function": of_wrapped_function,
    "partial": of_partial,
    "settings": lambda: settings(by_settings, SETTINGS, lambda: setattr(SETTINGS, "scale", 4.0)),
    "dict in settings": lambda: settings(
        by_settings, SETTINGS, lambda: SETTINGS.more.update(scale=4.0)
    ),
    "settings replaced": lambda: settings(by_settings, SETTINGS, replace_settings),
    "module": lambda: settings(by_module, MODULE, lambda: setattr(MODULE, "scale", 4.0)),
    "dict in a module": lambda: settings(by_module, MODULE, lambda: MODULE.more.update(scale=4.0)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OWNERS)
def test_a_change_of_an_attribute_is_noticed(name: str, kind: str) -> None:
    change = OWNERS[name]()
    layer = weighing(change.map)
    with KINDS[kind](layer) as read:
        read()
        change.make()
        expected = 4 * original_of(layer).detach()
        torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)


class ReadsParameter(nn.Module):
    """A map that reads a number which is set on its parameter."""

    def __init__(self) -> None:
        super().__init__()
        parameter: Any = nn.Parameter(torch.tensor(1.0), requires_grad=False)
        parameter.scale = 1.0
        self.parameter = parameter

    def forward(self, X: Tensor) -> Any:
        return X * self.parameter * vars(self.parameter)["scale"]


@pytest.mark.parametrize("kind", LASTING)
def test_what_lasts_notices_an_attribute_of_a_parameter(kind: str) -> None:
    parametrization = ReadsParameter()
    layer = weighing(parametrization)
    with KINDS[kind](layer) as read:
        before = read()
        assert read() is before
        parametrization.parameter.scale = 4.0
        torch.testing.assert_close(read(), 4 * original_of(layer).detach(), rtol=0, atol=0)


@pytest.mark.parametrize("kind", LASTING)
def test_what_lasts_notices_an_attribute_of_an_original(kind: str) -> None:
    layer: Any = weighing(lambda X: X * getattr(X, "scale", 1.0))
    original: Any = original_of(layer)
    original.scale = 1.0
    with KINDS[kind](layer) as read:
        read()
        original.scale = 4.0
        torch.testing.assert_close(read(), 4 * original.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("kind", LASTING)
@pytest.mark.parametrize("holder", HOLDERS)
def test_what_lasts_notices_other_code_of_a_method(holder: str, kind: str) -> None:
    cls, parametrization = HOLDERS[holder]()
    layer = weighing(parametrization)
    with KINDS[kind](layer) as read:
        read()
        cls.method.__code__ = (lambda self: 4.0).__code__
        expected = 4 * original_of(layer).detach()
        torch.testing.assert_close(read(), expected, rtol=0, atol=0)
