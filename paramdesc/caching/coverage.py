"""What the targets of a scope cover, remembered from one entry to the next.

A `Search` belongs to one `cached` object or to one set, and searches again only after a
parametrization has been made somewhere. So entering it again takes the same time for all models.

`cached(model)`, written in a loop, is a new object each time. So the walk over a model is
remembered by its root, and compared with the present modules: these may be exchanged in ways that
no code can observe. Whatever is remembered holds weak references only, so it keeps no module alive,
and it is not part of the model, so copies and pickles do not take it along.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain as chains
from operator import attrgetter, is_, itemgetter
from typing import Any
from weakref import WeakKeyDictionary, ref

from torch.nn import Module

from paramdesc.caching.programs import is_scripted_list
from paramdesc.caching.targets import Visit, covered_by, flatten
from paramdesc.chain.chain import Chain

__all__ = ["Covered", "Search", "note_new_chain"]


class Count:
    """The number of times that a parametrization was made, in all threads."""

    def __init__(self) -> None:
        self.made: object = object()  # not a number: two threads cannot give it the same value


_COUNT = Count()


def note_new_chain() -> None:
    """Make every `Search` search again."""
    _COUNT.made = object()


class Covered(WeakKeyDictionary[Any, str]):
    """Chains with their names, and the scripted ones among them. Not changed once it is made."""

    def __init__(self, names: dict[Any, str]) -> None:
        super().__init__(names)
        self._programs = [ref(chain) for chain in names if is_scripted_list(chain)]

    def programs(self) -> list[Any]:
        """The chains of scripted programs."""
        found = (reference() for reference in self._programs)
        return [chain for chain in found if chain is not None]


class Search:
    """The chains at and below some modules."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self.modules = list(modules)
        self._found: tuple[object, Covered] | None = None

    @classmethod
    def of(cls, targets: tuple[Any, ...]) -> Search:
        """The search for `targets`: that of a set, if this is the only target."""
        known = getattr(targets[0], "search", None) if len(targets) == 1 else None
        return known if isinstance(known, Search) else cls(flatten(targets))

    @property
    def search(self) -> Search:
        """This search, which is thereby a target as well."""
        return self

    def covered(self) -> Covered:
        """What is covered. Chains that were moved below the modules since then may be missing."""
        made = _COUNT.made  # before the search, in which another thread may make one
        found = self._found
        if found is None or found[0] is not made:
            found = self._found = made, covered_now(self.modules)
        return found[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"modules": self.modules, "_found": None}


def covered_now(modules: list[Module]) -> Covered:
    """What `modules` cover now. The walk over a module is repeated only if it has changed."""
    found = [walk_over(module).covered for module in modules]
    if len(found) == 1:
        return found[0]
    names: dict[Any, str] = {}
    for covered in found:
        for chain, name in covered.items():
            names.setdefault(chain, name)
    return Covered(names)


joined = chains.from_iterable
children_of = attrgetter("_modules")
_TWO: dict[str, Any] = {"": None, " ": None}  # of one key, `itemgetter` returns no tuple


class Walk:
    """What a walk over `root` has found, and in which modules.

    The result of a walk is determined by the children of each module that it visits, with their
    names and in their order, and by the classes of the chains.
    """

    __slots__ = (
        *("_candidates", "_children", "_classes", "_lengths", "_names"),
        *("covered", "is_comparable", "root", "visited"),
    )

    def __init__(self, root: Module) -> None:
        visits: list[Visit] = []
        self.covered = Covered(covered_by(root, visits))
        self.root = ref(root)
        self.visited = [ref(module) for module, _ in visits]
        listed = [_TWO, *(children for _, children in visits)]
        self._lengths = [*map(len, listed)]
        self._names = [*joined(listed)]
        places = {id(module): place for place, (module, _) in enumerate(visits)}
        places[id(None)] = len(visits)
        found = [places.get(id(x)) for children in listed for x in children.values()]
        # not if two modules are equal or a program is among them: only one of these is visited
        self.is_comparable = None not in found and not self.covered.programs()
        self._children: Any = itemgetter(*found) if self.is_comparable else None
        self._candidates = [
            places[id(x)]
            for children in listed
            for x in getattr(children.get("parametrizations"), "_modules", {}).values()
            if id(x) in places
        ]
        self._classes = [type(visits[place][0]) for place in self._candidates]

    def is_current(self) -> bool:
        """Whether another walk would find the same."""
        if not self.is_comparable:
            return False
        try:
            modules: list[Any] = [reference() for reference in self.visited]
            children = [_TWO, *map(children_of, modules)]
            modules.append(None)
            some = [*filter(None, children)]
            now = joined(map(dict.values, some))
            return (
                [*map(len, children)] == self._lengths
                and [*joined(some)] == self._names
                and all(map(is_, now, self._children(modules)))
                and [type(modules[x]) for x in self._candidates] == self._classes
            )
        except (AttributeError, RuntimeError, TypeError):
            return False  # a module was freed, or another thread is changing one


_WALKS: dict[int, Walk] = {}  # by the identity of the root; removed when it is freed


def walk_over(root: Module) -> Walk:
    """The last walk over `root` if it is current, otherwise a new one."""
    key = id(root)
    walk = _WALKS.get(key)
    if walk is None or walk.root() is not root or not walk.is_current():
        walk = Walk(root)
        if walk.is_comparable and not isinstance(root, Chain):
            walk.root = ref(root, lambda gone: forget_walk(key, gone))
            _WALKS[key] = walk
    return walk


def forget_walk(key: int, gone: Any) -> None:
    """Forget the walk over a module that was freed, unless its identity has been reused."""
    walk = _WALKS.get(key)
    if walk is not None and walk.root is gone:
        _WALKS.pop(key, None)
