"""A chain whose maps can be inserted, replaced and removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn, overload

import torch
from torch.nn import Module, ModuleList

from paramdesc.chain.chain import Chain
from paramdesc.chain.evaluation import evaluate
from paramdesc.chain.function_map import FunctionMap, as_map
from paramdesc.chain.protocols import ParametrizationProto, TensorMap
from paramdesc.chain.states import start_maps
from paramdesc.errors import ArgumentError, ChainError
from paramdesc.registration.editing import Edit, edit_maps
from paramdesc.registration.sharing import check_shared, is_shared, join
from paramdesc.registration.snapshot import Snapshot, below, tensors_in

__all__ = ["EditableChain"]


class EditableChain(Chain):
    """A chain whose maps can be changed. After an error, nothing has changed.

    `insert`, `replace` and `remove` keep the value. List operations, such as `del chain[0]`,
    `chain[0] = map` and `append`, keep the originals, as in torch.
    """

    def insert(
        self, index: int, module: ParametrizationProto | TensorMap, *, keep_value: bool = True
    ) -> None:
        """Insert a map before the one at `index`, and keep the value of the tensor.

        The previous value is assigned to the new chain, through the `right_inverse` of its maps. If
        they do not reach it, the new value is one nearby. The originals stay the same Parameter
        objects, so optimizers keep their state. Maps with a warm start begin from a new state.

        Args:
            index: the position, as in `list.insert`.
            module: a map, as in `register_parametrization`.
            keep_value: whether to keep the value. If False, the originals keep their entries
                instead, and the value changes.

        Raises:
            MissingRightInverseError: a RuntimeError, if `keep_value` is True and a map has no
                `right_inverse`.
            ChainError: a ValueError, if the shape or dtype of the value or of an original would
                change, or if keeping the value would overwrite a Parameter that another module
                holds.
            Exception: exceptions raised by the maps propagate unchanged. In all cases the chain
                stays as it was.
        """
        maps = list(self.maps())
        maps.insert(index, as_map(module))
        edit_maps(self, maps, Edit.KEEP_VALUE if keep_value else Edit.ORIGINALS)

    def replace(
        self,
        which: int | str | type[Module] | object,
        module: ParametrizationProto | TensorMap,
        *,
        keep_value: bool = True,
    ) -> Module:
        """Replace one map, and keep the value of the tensor, as `insert` does.

        Args:
            which: the index of the map, its type or the name of its class, or the map itself.
            module: the new map.
            keep_value: as in `insert`.

        Returns:
            The map that was replaced.

        Raises:
            ChainError: a ValueError, if `which` matches no map or several maps. Other exceptions
                are those of `insert`.

        >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Symmetric())
        >>> before = linear.weight
        >>> linear.parametrizations.weight.replace(Symmetric, Hermitian())
        Symmetric()
        >>> torch.equal(linear.weight, before)
        True
        """
        maps = list(self.maps())
        place = self.place_of(which)
        old, maps[place] = maps[place], as_map(module)
        edit_maps(self, maps, Edit.KEEP_VALUE if keep_value else Edit.ORIGINALS)
        return old

    def remove(
        self, which: int | str | type[Module] | object, *, keep_value: bool = True
    ) -> Module:
        """Remove one map, and keep the value of the tensor, as `insert` does.

        Args:
            which: as in `replace`.
            keep_value: as in `insert`.

        Returns:
            The map that was removed.

        Raises:
            ChainError: a ValueError, also if it is the only map: use `remove_parametrizations`.
        """
        maps = list(self.maps())
        old = maps.pop(self.place_of(which))
        edit_maps(self, maps, Edit.KEEP_VALUE if keep_value else Edit.ORIGINALS)
        return old

    def place_of(self, which: object) -> int:
        """The index of the map that is meant by an index, a type, a name or the map itself."""
        maps = list(self.maps())
        places = range(len(maps))
        if isinstance(which, int):
            found = [i for i in places if which in (i, i - len(maps))]
        else:
            found = [i for i in places if maps[i] is which]
            found = found or [i for i in places if is_meant(which, maps[i])]
        if len(found) != 1:
            named = which.__name__ if isinstance(which, type) else repr(which)
            raise ChainError.which(named, len(found), self.tensor_name, numbered(maps))
        return found[0]

    def as_index(self, index: Any) -> Any:
        """The index of a map, or a slice.

        Raises:
            ArgumentError: a TypeError, for anything else, such as the name of a class.
        """
        if isinstance(index, (int, slice)) or hasattr(index, "__index__"):
            return index
        maps = list(self.maps())
        found = next((i for i, part in enumerate(maps) if is_meant(index, part)), 0)
        raise ArgumentError.of_index(self.tensor_name, index, numbered(maps), found)

    def add_map(self, module: Module) -> str:
        """Append a map without a check. Returns its name."""
        name = str(len(list(self.maps())))
        self.add_module(name, module)
        return name

    def append(self, module: Module) -> Any:
        """Append a map, if the chain can be evaluated with it. The originals do not change.

        `torch.nn.utils.parametrize` calls this for a name that is already parametrized.
        """
        module = as_map(module)
        if is_shared(module):
            with torch.no_grad():
                check_shared(module, evaluate(self), self.tensor_name)
        snapshot = Snapshot(below([self, module]), (), tensors_in(below([module])))
        try:
            self.add_map(module)
            start_maps(self, anew=False)
            with torch.no_grad():
                evaluate(self)
            join(self)
        except BaseException:
            snapshot.restore()
            raise
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Append maps, if the chain can be evaluated with them: all of them or none."""
        if "unsafe" in self.__dict__:
            edit_maps(self, [*self.maps(), *map(as_map, modules)])
        else:
            super().extend(modules)  # torch is creating the list, and there are no originals yet
        return self

    def clear(self) -> NoReturn:
        """Raise: a chain without maps has no value."""
        raise ChainError.emptied(self.tensor_name, self.host)

    @overload  # type: ignore[override] # a slice is a plain list: half a chain has no original
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...
    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            return ModuleList(list(self.maps())[index])
        place: int = self.as_index(index)
        return super().__getitem__(place)

    def __setitem__(self, index: Any, module: Any) -> None:
        maps = list(self.maps())
        new = [as_map(x) for x in module] if isinstance(index, slice) else as_map(module)
        maps[self.as_index(index)] = new
        edit_maps(self, maps)

    def __delitem__(self, index: Any) -> None:
        maps = list(self.maps())
        del maps[self.as_index(index)]
        edit_maps(self, maps)


def numbered(maps: Iterable[Module]) -> list[str]:
    """The maps with their indices, for messages."""
    return [f"{i}: {' '.join(repr(part).split())}" for i, part in enumerate(maps)]


def is_meant(which: object, parametrization: Module) -> bool:
    """Whether a type, the name of a class, or a function means this map."""
    if isinstance(which, type):
        return isinstance(parametrization, which)
    if isinstance(parametrization, FunctionMap) and parametrization.function is which:
        return True
    return isinstance(which, str) and type(parametrization).__name__ == which
