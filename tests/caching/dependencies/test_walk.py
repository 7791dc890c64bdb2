"""The walk over what a map holds: it is bounded, runs no foreign code, and keeps nothing alive."""

from __future__ import annotations

import collections
import itertools
import sys
from collections.abc import Callable
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.caching.bound import Bound
from tests.caching.dependencies.kinds import KINDS, LASTING, weighing
from tests.helpers import chain_of, original_of

MOST = 2_000
"""More places than this are not watched, whatever a map holds."""


class Node:
    """An object with a place for others."""

    def __init__(self) -> None:
        self.next: Any = None
        self.factor = 2.0


class Holds(nn.Module):
    """`2 X`, whatever it holds."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held

    def forward(self, X: Tensor) -> Tensor:
        return 2 * X


def watched(bound: Bound) -> int:
    return len(bound.places) + len(bound.spots) + len(bound.counted)


# what is deep or large


def linked(n: int) -> Node:
    nodes = [Node() for _ in range(n)]
    for node, following in itertools.pairwise(nodes):
        node.next = following
    return nodes[0]


def tree(n: int) -> Node:
    root = Node()
    level = [root]
    while n > 0:
        for node in level:
            node.next = [Node(), Node()]
        level = [child for node in level for child in node.next]
        n -= len(level)
    return root


def nested(make: Callable[[Any], Any], n: int = 3_000) -> Any:
    inner: Any = 1.0
    for _ in range(n):
        inner = make(inner)
    return inner


def closed_over(inner: Any) -> Callable[[], Any]:
    return lambda: inner


def with_attributes(n: int) -> Node:
    node = Node()
    vars(node).update({f"a{i}": i for i in range(n)})
    return node


class Large(dict[str, Any]):
    """A dict with attributes."""


LARGE: dict[str, Callable[[], Any]] = {
    "linked objects": lambda: linked(3_000),
    "nested dicts": lambda: nested(lambda inner: {"a": inner}),
    "nested lists": lambda: nested(lambda inner: [inner]),
    "nested tuples": lambda: nested(lambda inner: (inner,)),
    "nested closures": lambda: nested(closed_over),
    "numbers in a list": lambda: list(range(10**6)),
    "numbers in a set": lambda: set(range(10**6)),
    "lists in a list": lambda: [[i] * 400 for i in range(400)],
    "dict": lambda: {str(i): i for i in range(50_000)},
    "dict with defaults": lambda: collections.defaultdict(int, enumerate(range(50_000))),
    "dict of a class": lambda: Large({str(i): i for i in range(50_000)}),
    "tensors in a list": lambda: [torch.ones(1) for _ in range(20_000)],
    "tree of objects": lambda: tree(20_000),
    "attributes of an object": lambda: with_attributes(50_000),
    "modules in a list": lambda: [nn.Identity() for _ in range(2_000)],
}


@pytest.fixture(scope="module")
def large() -> dict[str, Any]:
    return {name: make() for name, make in LARGE.items()}


@pytest.mark.parametrize("closely", [False, True])
@pytest.mark.parametrize("name", LARGE)
def test_what_is_deep_or_large_is_watched_in_part(
    name: str, closely: bool, large: dict[str, Any]
) -> None:
    bound = Bound(chain_of(weighing(Holds(large[name]))), closely)
    assert watched(bound) < MOST
    assert not bound.is_known
    assert bound.is_current()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LARGE)
def test_what_is_deep_or_large_outlives_no_block(
    name: str, kind: str, large: dict[str, Any]
) -> None:
    layer = weighing(Holds(large[name]))
    with KINDS[kind](layer) as read:
        value = read()
        assert (read() is value) is (kind not in LASTING)
        torch.testing.assert_close(value.detach(), 2 * original_of(layer).detach(), rtol=0, atol=0)


def test_a_write_to_the_original_is_noticed_beside_what_is_large(large: dict[str, Any]) -> None:
    layer = weighing(Holds(large["numbers in a list"]))
    for kind in KINDS.values():
        with kind(layer) as read:
            before = read().detach().clone()
            with torch.inference_mode(False), torch.no_grad():
                original_of(layer).mul_(3)
            torch.testing.assert_close(read().detach(), 3 * before)


# what is compiled


@torch.compile(backend="eager", fullgraph=True)
def doubled(X: Tensor) -> Tensor:
    return 2 * X


class Calls(nn.Module):
    """A module that calls a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, X: Tensor) -> Tensor:
        return self.function(X)


def in_closure(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda X: function(X)


def in_list(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    functions = [function]
    return lambda X: functions[0](X)


COMPILED: dict[str, Callable[[], Any]] = {
    "the map": lambda: doubled,
    "an attribute": lambda: Calls(doubled),
    "in a closure": lambda: in_closure(doubled),
    "a global name": lambda: lambda X: doubled(X),
    "in a list": lambda: in_list(doubled),
    "a compiled module": lambda: torch.compile(Holds(1), backend="eager", fullgraph=True),
    "a module compiled in place": lambda: compiled_in_place(Holds(1)),
}


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile(backend="eager", fullgraph=True)
    return module


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_function_gives_its_value(name: str, kind: str) -> None:
    layer = weighing(COMPILED[name]())
    with KINDS[kind](layer) as read:
        for _ in range(3):
            expected = 2 * original_of(layer).detach()
            torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)
            with torch.inference_mode(False), torch.no_grad():
                original_of(layer).add_(1)


# what answers oddly


class RaisesOnAttribute:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class RaisesOnEveryAttribute:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class RaisesWhenCompared:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> Any:
        raise RuntimeError("not comparable")

    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")

    def __len__(self) -> int:
        raise RuntimeError("no length")


class RaisesOnClass:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")

    @__class__.setter
    def __class__(self, cls: Any) -> None:
        raise RuntimeError("no class")


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __iter__(cls) -> Any:
        raise RuntimeError("no members")

    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError("not to be asked")

    def __subclasscheck__(cls, other: type) -> bool:
        raise RuntimeError("not to be asked")


class OfMeta(metaclass=Meta):
    """A class that tells nothing about itself."""


class RaisesOnLookup(dict[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError(f"no {key}")

    def items(self) -> Any:
        raise RuntimeError("no items")


class RaisesOnIteration(list[Any]):
    def __iter__(self) -> Any:
        raise RuntimeError("no items")

    def __getitem__(self, number: Any) -> Any:
        raise RuntimeError("no items")


class RaisesOnDict:
    @property
    def __dict__(self) -> Any:
        raise RuntimeError("no attributes")

    @__dict__.setter
    def __dict__(self, new: Any) -> None:
        raise RuntimeError("no attributes")


ODD: dict[str, Callable[[], Any]] = {
    "__getattr__": RaisesOnAttribute,
    "__getattribute__": RaisesOnEveryAttribute,
    "__eq__, __bool__ and __len__": RaisesWhenCompared,
    "__class__": RaisesOnClass,
    "metaclass": lambda: OfMeta,
    "instance of a metaclass": lambda: object.__new__(OfMeta),
    "lookup in a dict": lambda: RaisesOnLookup(a=1),
    "iteration over a list": lambda: RaisesOnIteration([1]),
    "__dict__": RaisesOnDict,
}


@pytest.mark.parametrize("as_class_attribute", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ODD)
def test_what_raises_when_it_is_asked_is_not_asked(
    name: str, kind: str, as_class_attribute: bool
) -> None:
    odd = ODD[name]()

    class Uses(Holds):
        ops = odd if as_class_attribute else None

    layer = weighing(Uses(None if as_class_attribute else [odd]))  # torch would ask it
    with KINDS[kind](layer) as read:
        for _ in range(2):
            expected = 2 * original_of(layer).detach()
            torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)


class Recorded(dict[str, int]):
    """A dict that makes what it lacks."""

    def __missing__(self, key: str) -> int:
        self[key] = 0
        return 0


DEFAULTS: dict[str, Callable[[], dict[str, int]]] = {
    "defaultdict": lambda: collections.defaultdict(int, a=0),
    "defaultdict of more": lambda: collections.defaultdict(int, a=0, b=1),
    "__missing__": lambda: Recorded(a=0),
    "Counter": lambda: collections.Counter(a=0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DEFAULTS)
def test_a_read_makes_no_key_anew(name: str, kind: str) -> None:
    counts = DEFAULTS[name]()
    layer = weighing(lambda X: X * (1 + len(counts)))
    with KINDS[kind](layer) as read:
        read()
        del counts["a"]
        size = len(counts)
        expected = (1 + size) * original_of(layer).detach()
        torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)
        assert "a" not in counts
        assert len(counts) == size


# what is freed


HELD: Any = None


class ReadsGlobal(nn.Module):
    def forward(self, X: Tensor) -> Any:
        return X * HELD.in_features


def by_global(X: Tensor) -> Any:
    return X * HELD.in_features


def referring(layer: nn.Module) -> Node:
    node = Node()
    node.next = layer
    return node


class ReadsNode(nn.Module):
    def forward(self, X: Tensor) -> Any:
        return X * HELD.next.in_features


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("name", ["module", "function", "object"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_that_its_map_refers_to_by_a_global_name_is_freed(kind: str, name: str) -> None:
    global HELD
    parametrization: Any = {"module": ReadsGlobal(), "function": by_global, "object": ReadsNode()}
    layer = nn.Linear(3, 3)
    HELD = referring(layer) if name == "object" else layer
    P.register_parametrization(layer, "weight", parametrization.pop(name))
    before = ref(layer)
    scope = P.cached(layer, persistent=kind in LASTING)
    with torch.set_grad_enabled(kind in ("with gradients", "deferred")), scope:
        expected = 3 * original_of(layer).detach()
        torch.testing.assert_close(layer.weight.detach(), expected)
        assert layer.weight is layer.weight
    del scope
    HELD = None
    del layer
    assert before() is None


LETTING_GO: dict[str, Callable[[Any], object]] = {
    "replaced": lambda m: setattr(m, "held", None),
    "deleted": lambda m: delattr(m, "held"),
    "its list is emptied": lambda m: m.held.clear(),
    "its list is replaced": lambda m: setattr(m, "held", [Node()]),
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"auto_cache", "persistent, entered anew"}))
@pytest.mark.parametrize("name", LETTING_GO)
def test_an_object_that_a_map_has_let_go_of_is_freed_after_the_scope(name: str, kind: str) -> None:
    node = Node()
    before = ref(node)
    parametrization = Holds([node] if "list" in name else node)
    layer = weighing(parametrization)
    del node
    with KINDS[kind](layer) as read:
        read()
        LETTING_GO[name](parametrization)
    del read
    assert before() is None


def test_a_walk_uses_no_recursion() -> None:
    layer = weighing(Holds(linked(3_000)))
    limit = sys.getrecursionlimit()
    with P.cached(layer):
        sys.setrecursionlimit(200)
        try:
            value = layer.weight
        finally:
            sys.setrecursionlimit(limit)
    torch.testing.assert_close(value, 2 * original_of(layer))


FACTOR = Node()


@torch.compile(backend="eager", fullgraph=True)
def by_factor(X: Tensor) -> Tensor:
    return FACTOR.factor * X


READS_FACTOR: dict[str, Callable[[], Any]] = {
    "the map": lambda: by_factor,
    "an attribute": lambda: Calls(by_factor),
    "in a closure": lambda: in_closure(by_factor),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READS_FACTOR)
def test_what_a_compiled_function_reads_is_noticed(name: str, kind: str) -> None:
    FACTOR.factor = 2.0
    layer = weighing(READS_FACTOR[name]())
    with KINDS[kind](layer) as read:
        read()
        FACTOR.factor = 4.0
        expected = 4 * original_of(layer).detach()
        torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)
