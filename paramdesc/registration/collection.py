"""The parametrizations of a model, as an ordered set with names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from fnmatch import fnmatchcase
from typing import Any

from torch.nn import Module, Parameter

from paramdesc.caching.coverage import Search
from paramdesc.caching.programs import is_scripted_list
from paramdesc.caching.targets import find_chains
from paramdesc.chain.table import html_table, text_table
from paramdesc.chain.warm import warm_maps
from paramdesc.errors import ArgumentError, MissingChainError, ModuleError
from paramdesc.registration.parametrization_list import ParametrizationList

__all__ = ["ParametrizationSet", "get_parametrizations", "map_types"]


class ParametrizationSet(Set[ParametrizationList]):
    """An ordered, immutable set of `ParametrizationList`s, each with a name in the model.

    The name is the path of the tensor, such as `encoder.0.weight`. Two sets are equal if they
    contain the same lists. `|`, `&`, `-` and `^` keep order and names.

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    >>> for layer in model:
    ...     _ = register_parametrization(layer, "weight", Symmetric())
    >>> found = get_parametrizations(model)
    >>> found.names()
    ['0.weight', '1.weight']
    >>> found["0.weight"]
    ParametrizationList('weight' of Linear: Symmetric())
    >>> (found - found.filter(path="0")).names()
    ['1.weight']
    """

    __slots__ = ("_names", "_search")

    def __init__(self, chains: Iterable[ParametrizationList] = ()) -> None:
        self._names: dict[ParametrizationList, str] = {}
        for chain in chains:
            self._names.setdefault(chain, chain.tensor_name)

    @classmethod
    def named(cls, names: Iterable[tuple[str, ParametrizationList]]) -> ParametrizationSet:
        """The set of these lists under these names; the first name of a list counts."""
        result = cls()
        for name, chain in names:
            result._names.setdefault(chain, name)
        return result

    @property
    def search(self) -> Search:
        """What a scope with this set covers. All scopes share the result."""
        found: Search | None = getattr(self, "_search", None)
        if found is None:
            found = self._search = Search(self._names)
        return found

    def __contains__(self, chain: object) -> bool:
        return chain in self._names

    def __getitem__(self, name: str) -> ParametrizationList:
        """The list with this name in the model.

        Raises:
            KeyError: with suggestions of similar names.
        """
        for chain, known in self._names.items():
            if known == name:
                return chain
        raise MissingChainError("the set has", name, self.names())

    def _ipython_key_completions_(self) -> list[str]:
        return self.names()

    def __iter__(self) -> Iterator[ParametrizationList]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __hash__(self) -> int:
        return self._hash()

    def names(self) -> list[str]:
        """The names, in order."""
        return list(self._names.values())

    def items(self) -> list[tuple[str, ParametrizationList]]:
        """The names with their lists, in order."""
        return [(name, chain) for chain, name in self._names.items()]

    def filter(
        self,
        *,
        tensor_name: str | None = None,
        map_type: type[Module] | tuple[type[Module], ...] | None = None,
        path: str | None = None,
    ) -> ParametrizationSet:
        """The lists that match all given conditions.

        Args:
            tensor_name: the name of the tensor in its module, such as `weight`.
            map_type: a type, or several, that one of the maps is an instance of. In TorchScript
                programs, only the name of the type is compared.
            path: a shell pattern for the path of the module, such as `encoder.*`; `""` is the root.

        Raises:
            TypeError: if `map_type` is not a type.
        """
        tests: list[Callable[[str, ParametrizationList], bool]] = []
        if tensor_name is not None:
            tests.append(lambda name, chain: name.rpartition(".")[2] == tensor_name)
        if map_type is not None:
            types = map_types("map_type", map_type)
            tests.append(lambda name, chain: any(has_map(chain, cls) for cls in types))
        if path is not None:
            tests.append(lambda name, chain: fnmatchcase(name.rpartition(".")[0], path))
        return self.named(
            (name, chain)
            for name, chain in self.items()
            if all(test(name, chain) for test in tests)
        )

    def named_originals(self) -> list[tuple[str, Parameter]]:
        """The trained originals with their names in the model, each Parameter once.

        Pass them to an optimizer as they are, or as the `params` of one of its groups.
        """
        found: dict[Parameter, str] = {}
        for name, chain in self.items():
            path, dot, tensor_name = name.rpartition(".")
            for own, x in chain.named_parameters(recurse=False):
                found.setdefault(x, f"{path}{dot}parametrizations.{tensor_name}.{own}")
        return [(name, x) for x, name in found.items()]

    def originals(self) -> list[Parameter]:
        """The trained originals, each Parameter once, for an optimizer group.

        >>> layer = register_parametrization(torch.nn.Linear(3, 3), "weight", Symmetric())
        >>> group = {"params": get_parametrizations(layer).originals(), "weight_decay": 0.0}
        >>> [x.shape for x in group["params"]]
        [torch.Size([3, 3])]
        """
        return [x for _, x in self.named_originals()]

    def warm_start_names(self) -> list[str]:
        """The state_dict keys of the tensors that `Parametrization.warm_start` names.

        Leave these out when averaging models, see `Parametrization`.
        """
        return [
            f"{path}{dot}parametrizations.{tensor_name}.{place}.{buffer}"
            for name, chain in self.items()
            for path, dot, tensor_name in [name.rpartition(".")]
            for place, parametrization in warm_maps(chain).items()
            for buffer in parametrization.warm_start
        ]

    def __or__(self, other: Iterable[Any]) -> ParametrizationSet:
        return self.named([*self.items(), *named_items(other)])

    def __and__(self, other: Iterable[Any]) -> ParametrizationSet:
        kept = set(other)
        return self.named(item for item in self.items() if item[1] in kept)

    def __sub__(self, other: Iterable[Any]) -> ParametrizationSet:
        gone = set(other)
        return self.named(item for item in self.items() if item[1] not in gone)

    def __xor__(self, other: Iterable[Any]) -> ParametrizationSet:
        others = self.named(named_items(other))
        return (self - others) | (others - self)

    def __str__(self) -> str:
        return text_table(TITLES, map_cells(self)) if self._names else repr(self)

    def _repr_html_(self) -> str:
        return html_table(TITLES, map_cells(self))

    def __repr__(self) -> str:
        return f"ParametrizationSet([{', '.join(map(repr, self.names()))}])"


TITLES = ("tensor", "parametrization")


def map_cells(chains: ParametrizationSet) -> list[tuple[str, str]]:
    """The cells of a table of `chains`."""
    return [
        (name, "in TorchScript" if is_scripted_list(chain) else chain.shown_maps())
        for name, chain in chains.items()
    ]


def map_types(argument: str, given: type[Module] | tuple[type[Module], ...]) -> tuple[Any, ...]:
    """The types in an argument that takes one or several.

    Raises:
        ArgumentError: a TypeError, with what to write.
    """
    types = given if isinstance(given, tuple) else (given,)
    if not all(isinstance(x, type) for x in types):
        raise ArgumentError.of_map_types(argument, given)
    return types


def has_map(chain: Any, map_type: type[Module]) -> bool:
    """Whether one of the maps of `chain`, which may be scripted, is of that type."""
    if is_scripted_list(chain):
        maps = (child for name, child in chain._modules.items() if name.isdigit())
        return any(child.original_name == map_type.__name__ for child in maps)
    return any(isinstance(child, map_type) for child in chain.maps())


def named_items(chains: Iterable[Any]) -> list[tuple[str, ParametrizationList]]:
    known = chains if isinstance(chains, ParametrizationSet) else ParametrizationSet(chains)
    return known.items()


def get_parametrizations(*modules: Module) -> ParametrizationSet:
    """Return all parametrizations of `modules` and their submodules, as in `named_modules`.

    Pass the result, or a part of it, to `cached`, as parameters are passed to an optimizer. A
    parametrization that several modules share is listed once, under its first name. The time is
    linear in the number of modules.

    Raises:
        TypeError: if an argument is not a module.
    """
    for module in modules:
        if not isinstance(module, Module):
            raise ModuleError.one_by_one("get_parametrizations", module)
    return ParametrizationSet.named(
        found for module in modules for found in find_chains(module, set())
    )
