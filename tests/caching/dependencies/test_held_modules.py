"""A kept value depends on the modules that its map uses, and on all of their children."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from tests.caching.dependencies.kinds import IN_A_BLOCK, KINDS, Weight, weighing
from tests.helpers import chain_of


class Scale(nn.Module):
    """A part of a net, with a number, a buffer and a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.register_buffer("buffer", torch.tensor(1.0))
        self.parameter = nn.Parameter(torch.tensor(1.0), requires_grad=False)

    def factor(self) -> Any:
        return self.scale * self.get_buffer("buffer") * self.parameter


class Held(NamedTuple):
    map: Any
    part: Scale


class Net(nn.Module):
    def __init__(self, sub: nn.Module) -> None:
        super().__init__()
        self.sub = sub


def nested_in_closure() -> Held:
    net: Any = Net(Net(Scale()))
    return Held(lambda X: X * net.sub.sub.factor(), net.sub.sub)


def in_list() -> Held:
    parts = [Scale(), Scale()]
    return Held(lambda X: X * parts[0].factor() * parts[1].factor(), parts[1])


def in_closure() -> Held:
    part = Scale()
    return Held(lambda X: X * part.factor(), part)


def in_default() -> Held:
    part = Scale()
    return Held(lambda X, part=part: X * part.factor(), part)


class Uses(nn.Module):
    """A map that reaches the part through what it holds."""

    def __init__(self, held: Any, get: Callable[[Any], Scale]) -> None:
        super().__init__()
        self.held = held
        self.get = get

    def forward(self, X: Tensor) -> Any:
        return X * self.get(self.held).factor()


def in_attribute(wrap: Callable[[Scale], Any], get: Callable[[Any], Any]) -> Callable[[], Held]:
    def make() -> Held:
        part = Scale()
        return Held(Uses(wrap(part), get), part)

    return make


GLOBAL_NET: Any = Net(Scale())


def by_global_name() -> Held:
    GLOBAL_NET.sub = Scale()
    return Held(lambda X: X * GLOBAL_NET.sub.factor(), GLOBAL_NET.sub)


HOLDERS: dict[str, Callable[[], Held]] = {
    "nested, in a closure": nested_in_closure,
    "list in a closure": in_list,
    "closure": in_closure,
    "default": in_default,
    "global name": by_global_name,
    "child": in_attribute(lambda part: part, lambda held: held),
    "child of a child": in_attribute(Net, lambda held: held.sub),
    "list": in_attribute(lambda part: [part], lambda held: held[0]),
    "dict in a list": in_attribute(lambda part: [{"a": part}], lambda held: held[0]["a"]),
    "nested in a tuple": in_attribute(lambda part: (Net(part),), lambda held: held[0].sub),
    "ModuleList": in_attribute(lambda part: nn.ModuleList([part]), lambda held: held[0]),
    "ModuleDict in a list": in_attribute(
        lambda part: [nn.ModuleDict({"a": part})], lambda held: held[0]["a"]
    ),
    "Sequential": in_attribute(lambda part: nn.Sequential(part), lambda held: held[0]),
}


def replace_method(part: Any) -> None:
    part.factor = lambda: 4.0


PART_CHANGES: dict[str, Callable[[Any], object]] = {
    "number": lambda part: setattr(part, "scale", 4.0),
    "buffer replaced": lambda part: setattr(part, "buffer", torch.tensor(4.0)),
    "buffer written to": lambda part: part.buffer.mul_(4),
    "parameter replaced": lambda part: setattr(
        part, "parameter", nn.Parameter(torch.tensor(4.0), requires_grad=False)
    ),
    "parameter written to": lambda part: part.parameter.mul_(4),
    "parametrized": lambda part: P.register_parametrization(part, "parameter", lambda X: 4 * X),
    "method replaced": replace_method,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", PART_CHANGES)
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_change_in_a_held_module_is_noticed(holder: str, change: str, kind: str) -> None:
    held = HOLDERS[holder]()
    with KINDS[kind](weighing(held.map)) as read:
        before = read()
        assert read() is before
        expected = 4 * before.detach()
        with torch.inference_mode(False), torch.no_grad():
            PART_CHANGES[change](held.part)
        torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)


# what is added


class Fourfold(nn.Module):
    """`4 X`, without reference to anything."""

    def forward(self, X: Tensor) -> Tensor:
        return 4 * X


class Each(nn.Module):
    """Applies each module of a list in turn."""

    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        self.each = nn.ModuleList(modules)

    def forward(self, X: Tensor) -> Any:
        for module in self.each:
            X = module(X)
        return X


class EachNamed(nn.Module):
    def __init__(self, modules: dict[str, nn.Module]) -> None:
        super().__init__()
        self.each = nn.ModuleDict(modules)

    def forward(self, X: Tensor) -> Any:
        for module in self.each.values():
            X = module(X)
        return X


class Product(nn.Module):
    """Multiplies by each entry of a list or dict of parameters."""

    def __init__(self, factors: Any) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, X: Tensor) -> Any:
        factors = self.factors
        for factor in factors.values() if hasattr(factors, "values") else factors:
            X = X * factor
        return X


class Optional(nn.Module):
    """Multiplies by `factor`, if it has one."""

    factor: Any

    def forward(self, X: Tensor) -> Any:
        return X * self.factor if hasattr(self, "factor") else X


class OptionalChild(nn.Module):
    child: Any

    def forward(self, X: Tensor) -> Any:
        return self.child(X) if hasattr(self, "child") else X


class WithNone(nn.Module):
    """Has a buffer and a parameter that are None."""

    factor: Any
    other: Any

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", None)
        self.register_parameter("other", None)

    def forward(self, X: Tensor) -> Any:
        X = X if self.factor is None else X * self.factor
        return X if self.other is None else X * self.other


def frozen(factor: float = 4.0) -> nn.Parameter:
    return nn.Parameter(torch.tensor(factor), requires_grad=False)


ADDED: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], object]]] = {
    "Sequential.append": (lambda: nn.Sequential(nn.Identity()), lambda m: m.append(Fourfold())),
    "Sequential.append to none": (nn.Sequential, lambda m: m.append(Fourfold())),
    "Sequential.insert": (lambda: nn.Sequential(nn.Identity()), lambda m: m.insert(0, Fourfold())),
    "Sequential.extend": (nn.Sequential, lambda m: m.extend([Fourfold()])),
    "Sequential item": (
        lambda: nn.Sequential(nn.Identity()),
        lambda m: m.__setitem__(0, Fourfold()),
    ),
    "ModuleList.append": (lambda: Each([nn.Identity()]), lambda m: m.each.append(Fourfold())),
    "ModuleList.append to none": (lambda: Each([]), lambda m: m.each.append(Fourfold())),
    "ModuleDict entry": (lambda: EachNamed({}), lambda m: m.each.update({"a": Fourfold()})),
    "ModuleDict entry replaced": (
        lambda: EachNamed({"a": nn.Identity()}),
        lambda m: m.each.update({"a": Fourfold()}),
    ),
    "ParameterList.append": (
        lambda: Product(nn.ParameterList([frozen(1.0)])),
        lambda m: m.factors.append(frozen()),
    ),
    "ParameterDict entry": (
        lambda: Product(nn.ParameterDict()),
        lambda m: m.factors.update({"a": frozen()}),
    ),
    "second ParameterDict entry": (
        lambda: Product(nn.ParameterDict({"b": frozen(1.0)})),
        lambda m: m.factors.update({"a": frozen()}),
    ),
    "ParameterDict entry that is a number": (
        lambda: Product(nn.ParameterDict({"b": frozen(1.0)})),
        lambda m: m.factors.update({"a": 4.0}),
    ),
    "register_buffer": (Optional, lambda m: m.register_buffer("factor", torch.tensor(4.0))),
    "register_parameter": (Optional, lambda m: m.register_parameter("factor", frozen())),
    "attribute": (Optional, lambda m: setattr(m, "factor", 4.0)),
    "class attribute": (
        lambda: type("Own", (Optional,), {})(),
        lambda m: setattr(type(m), "factor", 4.0),
    ),
    "property of the class": (
        lambda: type("Own", (Optional,), {})(),
        lambda m: setattr(type(m), "factor", property(lambda self: 4.0)),
    ),
    "add_module": (OptionalChild, lambda m: m.add_module("child", Fourfold())),
    "a buffer that was None": (WithNone, lambda m: setattr(m, "factor", torch.tensor(4.0))),
    "a parameter that was None": (WithNone, lambda m: setattr(m, "other", frozen())),
    "forward of an instance": (nn.Identity, lambda m: setattr(m, "forward", lambda X: 4 * X)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ADDED)
def test_what_is_added_to_a_map_is_noticed(name: str, kind: str) -> None:
    make, add = ADDED[name]
    parametrization = make()
    with KINDS[kind](weighing(parametrization)) as read:
        before = read()
        assert read() is before
        expected = 4 * before.detach()
        with torch.inference_mode(False), torch.no_grad():
            add(parametrization)
        torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)


# another layer


class Times(nn.Module):
    """A map with a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, X: Tensor) -> Tensor:
        return self.factor * X

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y / self.factor


class ReadsWeight(nn.Module):
    """A map that reads the weight of another layer, which is not its child."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layers = [layer]

    def forward(self, X: Tensor) -> Any:
        return X * self.layers[0].weight


def calling(layer: Any) -> Callable[[Tensor], Any]:
    return lambda X: X * layer()


def reading(layer: Any) -> Callable[[Tensor], Any]:
    return lambda X: X * layer.weight


def replace_original(layer: Any) -> None:
    chain = chain_of(layer)
    chain.original = nn.Parameter(4 * chain.original.detach())


def add_hook(module: nn.Module) -> None:
    module.register_forward_hook(lambda module, args, output: 4 * output)


LAYER_CHANGES: dict[str, Callable[[Any], object]] = {
    "another map": lambda a: P.register_parametrization(a, "weight", Fourfold()),
    "assigned": lambda a: setattr(a, "weight", 4 * a.weight.detach()),
    "original replaced": replace_original,
    "original written to": lambda a: chain_of(a).original.mul_(4),
    "hook on its chain": lambda a: add_hook(chain_of(a)),
    "hook on its map": lambda a: add_hook(chain_of(a)[0]),
    "attribute of its map": lambda a: setattr(chain_of(a)[0], "factor", 4.0),
    "its map replaced": lambda a: chain_of(a).__setitem__(0, Times(4.0)),
    "its original parametrized": lambda a: P.register_parametrization(
        chain_of(a), "original", Fourfold()
    ),
}
BY: dict[str, Callable[[nn.Module], Any]] = {
    "closure": reading,
    "list": ReadsWeight,
    "call": calling,
}


def unscoped(part: nn.Module) -> list[nn.Module]:
    return []


def with_the_part(part: nn.Module) -> list[nn.Module]:
    return [part]


@pytest.mark.parametrize("covered", [unscoped, with_the_part])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("change", LAYER_CHANGES)
def test_a_change_of_another_layer_is_noticed(
    change: str, by: str, kind: str, covered: Callable[[nn.Module], list[nn.Module]]
) -> None:
    part = weighing(Times(1.0))
    with KINDS[kind](weighing(BY[by](part))) as read, P.cached(nn.Identity(), *covered(part)):
        read()
        expected = 4 * read().detach()
        with torch.inference_mode(False), torch.no_grad():
            LAYER_CHANGES[change](part)
        torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", BY)
def test_a_parametrization_of_a_layer_that_had_none_is_noticed(by: str, kind: str) -> None:
    part = Weight(3, 3).eval()
    with KINDS[kind](weighing(BY[by](part))) as read, P.cached(part):
        read()
        expected = 4 * read().detach()
        with torch.inference_mode(False), torch.no_grad():
            P.register_parametrization(part, "weight", Fourfold())
        torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", BY)
def test_a_parametrization_that_is_removed_is_noticed(by: str, kind: str) -> None:
    part = weighing(Times(4.0))
    with KINDS[kind](weighing(BY[by](part))) as read, P.cached(part):
        read()
        expected = read().detach() / 4
        with torch.inference_mode(False), torch.no_grad():
            P.remove_parametrizations(part, "weight", leave_parametrized=False)
        torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_on_a_layer_that_is_called_is_noticed(kind: str) -> None:
    part = weighing(Times(1.0))
    with KINDS[kind](weighing(calling(part))) as read, P.cached(part):
        read()
        expected = 4 * read().detach()
        add_hook(part)
        torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", IN_A_BLOCK)
def test_a_scope_on_the_other_layer_alone_keeps_its_weight_only(kind: str) -> None:
    part = weighing(Times(1.0))
    layer = weighing(reading(part))
    with KINDS[kind](part) as read_part:
        before = layer().detach()
        kept = read_part()
        assert read_part() is kept
        assert layer() is not layer()
        with torch.inference_mode(False), torch.no_grad():
            chain_of(part)[0].factor = 4.0
        torch.testing.assert_close(layer().detach(), 4 * before, rtol=0, atol=0)
