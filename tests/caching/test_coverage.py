"""What a scope covers is remembered between entries, and never differs from a fresh search."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from weakref import ref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize as torch_engine

import paramdesc
from paramdesc import cached, get_parametrizations, register_parametrization
from paramdesc.caching import coverage
from paramdesc.caching.coverage import Search, Walk, covered_now
from paramdesc.caching.targets import get_covered
from paramdesc.parametrizations import Symmetric


def layer() -> nn.Module:
    return register_parametrization(nn.Linear(2, 2), "weight", Symmetric())


def model() -> Any:
    return nn.Sequential(nn.Sequential(layer(), nn.ReLU()), nn.ModuleDict({"head": layer()}))


def listed(covered: Any) -> list[tuple[int, str]]:
    return [(id(chain), name) for chain, name in covered.items()]


def check(root: nn.Module) -> None:
    assert listed(covered_now([root])) == listed(get_covered([root]))


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The roots of all walks that are made."""
    roots: list[nn.Module] = []

    class Counted(Walk):
        __slots__ = ()

        def __init__(self, root: nn.Module) -> None:
            roots.append(root)
            super().__init__(root)

    monkeypatch.setattr(coverage, "Walk", Counted)
    return roots


# random edits of a tree of modules


class Tree:
    """A model, and edits of it that are chosen by numbers."""

    def __init__(self) -> None:
        self.root: Any = model()

    def modules(self) -> list[Any]:
        return [m for m in self.root.modules() if type(m) in (nn.Sequential, nn.ModuleDict)]

    def edit(self, kind: int, a: int, b: int) -> None:
        parents = self.modules()
        parent = parents[a % len(parents)]
        children: dict[str, Any] = parent._modules
        names = list(children)
        name = names[b % len(names)] if names else "none"
        edits: list[Callable[[], object]] = [
            lambda: children.__setitem__(f"new{b}", layer()),
            lambda: setattr(parent, f"new{b}", nn.Sequential(layer())),
            lambda: parent.add_module(f"plain{b}", nn.Linear(2, 2)),
            lambda: children.pop(name, None),
            lambda: delattr(parent, name) if names else None,
            lambda: children.__setitem__(name, layer()) if names else None,
            lambda: children.__setitem__("renamed", children.pop(name)) if names else None,
            lambda: children.__setitem__(name, children.pop(name)) if names else None,
            lambda: children.__setitem__(name, None) if names else None,
            lambda: self.move(children, name, parents[b % len(parents)]),
            lambda: children.__setitem__("again", self.linears()[0] if self.linears() else None),
            lambda: self.register(a),
            lambda: self.remove(a),
            lambda: parent.__dict__.__setitem__("_modules", dict(children)),
            lambda: parent.__dict__.__setitem__("_modules", OrderedDict(children)),
            lambda: parent.__dict__.__setitem__("_modules", {}),
            lambda: self.root.load_state_dict(self.root.state_dict()),
            lambda: setattr(self, "root", copy.deepcopy(self.root)),
            lambda: setattr(self, "root", pickle.loads(pickle.dumps(self.root))),
            lambda: setattr(self, "root", copy.copy(self.root)),
            lambda: parent.__setstate__(nn.Sequential(layer()).__dict__),
            lambda: self.adopt(b),
        ]
        edits[kind % len(edits)]()

    def move(self, children: dict[str, Any], name: str, to: Any) -> None:
        child = children.get(name)
        if child is not None and all(to is not m for m in child.modules()):
            to._modules[name] = children.pop(name)

    def linears(self) -> list[nn.Module]:
        return [m for m in self.root.modules() if isinstance(m, nn.Linear)]

    def register(self, number: int) -> None:
        for module in self.linears()[number % 3 :][:1]:
            register_parametrization(module, "weight", Symmetric())

    def remove(self, number: int) -> None:
        for module in self.linears()[number % 3 :][:1]:
            if paramdesc.is_parametrized(module, "weight"):
                paramdesc.remove_parametrizations(module, "weight")

    def adopt(self, number: int) -> None:
        theirs = torch_engine.register_parametrization(nn.Linear(2, 2), "weight", nn.Identity())
        self.root._modules[f"theirs{number}"] = theirs
        check(self.root)
        paramdesc.adopt(theirs)


numbers = st.integers(0, 30)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers), max_size=12))
def test_a_remembered_walk_is_a_fresh_one_after_any_edits(
    edits: list[tuple[int, int, int]],
) -> None:
    tree = Tree()
    check(tree.root)
    for edit in edits:
        tree.edit(*edit)
        check(tree.root)
        check(tree.root)


def test_a_move_to_a_neighbour_that_keeps_the_order_is_seen() -> None:
    root = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Sequential())
    first: dict[str, Any] = root[0]._modules
    second: dict[str, Any] = root[1]._modules
    second["1"] = layer()
    check(root)
    first["1"] = second.pop("1")
    check(root)


def test_an_equal_module_is_another_module() -> None:
    class Equal(nn.Sequential):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        def __hash__(self) -> int:
            return 1

    root = nn.Sequential(Equal(layer()))
    check(root)
    root._modules["0"] = Equal(layer())
    check(root)
    check(Equal(layer()))


# how often a walk is made


def test_a_loop_over_a_model_walks_once(walks: list[nn.Module]) -> None:
    root = model()
    for _ in range(3):
        with cached(root) as scope:
            assert root[0][0].weight is root[0][0].weight
            assert scope.hits == 1
    assert walks == [root]
    root[1]["head"] = layer()
    with cached(root) as scope:
        assert root[1]["head"].weight is root[1]["head"].weight
        assert scope.hits == 1
    assert walks == [root, root]


def test_an_object_entered_again_does_not_look_at_the_model(
    walks: list[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = model()
    looks: list[object] = []
    is_current = Walk.is_current

    def looked(walk: Walk) -> bool:
        looks.append(walk)
        return is_current(walk)

    monkeypatch.setattr(Walk, "is_current", looked)
    for targets in ((root,), (get_parametrizations(root),), (root[0], root[1])):
        scope = cached(*targets)
        with scope as opened:
            assert root[0][0].weight is root[0][0].weight
            assert opened.hits == 1
        walks.clear()
        looks.clear()
        for _ in range(3):
            with scope as opened:
                assert root[0][0].weight is root[0][0].weight
                assert opened.hits == 1
        assert not walks
        assert not looks


def test_scopes_of_one_set_search_once(walks: list[nn.Module]) -> None:
    found = get_parametrizations(model())
    for _ in range(3):
        with cached(found):
            pass
    assert len(walks) == len(found)


def test_an_object_entered_again_covers_what_was_registered_since() -> None:
    root = model()
    scopes = cached(root), cached(get_parametrizations(root)), cached(root[0], root[1])
    for scope in scopes:
        with scope:
            pass
    register_parametrization(root[0][0], "bias", torch.neg)  # a new value at each evaluation
    register_parametrization(root[0][0].parametrizations.weight, "original", torch.neg)
    for scope, covers_both in zip(scopes, (True, False, True), strict=True):
        with scope as opened:
            nested = root[0][0].parametrizations.weight
            assert nested.original is nested.original
            assert opened.hits == 1
            assert (root[0][0].bias is root[0][0].bias) is covers_both


def test_copies_of_an_object_search_for_themselves() -> None:
    scope = cached(model())
    with scope:
        pass
    for twin in (copy.deepcopy(scope), pickle.loads(pickle.dumps(scope))):
        root: Any = twin._targets and twin._targets.modules[0]
        with twin as opened:
            assert root[0][0].weight is root[0][0].weight
            assert opened.hits == 1


def test_a_set_with_a_search_is_copied() -> None:
    found = get_parametrizations(model())
    with cached(found):
        pass
    for twin in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert twin.names() == found.names()
        assert twin != found
        assert {*twin.search.covered()} == {*twin}


# what is remembered keeps nothing alive


def test_a_model_is_freed_without_the_garbage_collector() -> None:
    root = model()
    with cached(root):
        pass
    gone, before = ref(root), len(coverage._WALKS)
    gc.disable()
    try:
        del root
        assert gone() is None
        assert len(coverage._WALKS) == before - 1
    finally:
        gc.enable()


def test_a_model_whose_child_refers_to_it_is_freed() -> None:
    root = model()
    root[0][0].__dict__["owner"] = root
    with cached(root):
        pass
    gone = ref(root)
    del root
    gc.collect()
    assert gone() is None


def test_a_deleted_child_is_freed_while_its_parent_is_remembered() -> None:
    root = model()
    scope = cached(root)
    for opened in (scope, cached(root)):
        with opened:
            pass
    gone = ref(root[0][0].parametrizations.weight)
    del root[0]
    assert gone() is None
    check(root)


def test_nothing_is_added_to_the_model() -> None:
    root = model()
    before = {module: dict(vars(module)) for module in root.modules()}
    with cached(root):
        pass
    assert {module: dict(vars(module)) for module in root.modules()} == before


# programs, and threads


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_programs_are_searched_at_each_entry_and_covered() -> None:
    root = nn.Sequential(torch.jit.script(nn.Sequential(layer())), layer())
    for _ in range(2):
        check(root)
        with cached(root) as scope:
            assert len(scope.programs) == 1
            assert root[1].weight is root[1].weight
    again = cached(root)
    for _ in range(2):
        with again as scope:
            assert len(scope.programs) == 1


def test_threads_that_edit_and_enter_find_a_state_that_was_there() -> None:
    root = nn.Sequential(*(layer() for _ in range(5)))
    other = layer()
    valid = {id(chain) for chain in get_covered([root, other])}
    failures: list[object] = []
    stop = threading.Event()

    def enter() -> None:
        while not stop.is_set():
            found = {id(chain) for chain in covered_now([root])}
            if not (found <= valid and len(found) >= 4):
                failures.append(found)

    thread = threading.Thread(target=enter)
    thread.start()
    for _ in range(300):
        kept = root._modules.pop("2")
        root._modules["2"] = other
        root._modules["2"] = kept
    stop.set()
    thread.join()
    assert not failures
    check(root)


def test_a_chain_made_during_a_search_is_found_by_the_next() -> None:
    root = model()
    search = Search([root])

    class Late(nn.Sequential):
        def __getattribute__(self, name: str) -> Any:
            if name == "_modules" and not late:
                late.append(layer())  # another thread makes a chain while this one searches
            return super().__getattribute__(name)

    late: list[nn.Module] = [nn.Identity()]
    root.append(Late())
    late.clear()
    search.covered()
    root[0]._modules["late"] = late[0]
    assert listed(search.covered()) == listed(get_covered([root]))
