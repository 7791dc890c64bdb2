"""`module.parametrizations`: the chains of one module by tensor name."""

from __future__ import annotations

from typing import Any

from torch import nn

from paramdesc.errors import ChainError, MixedEnginesError
from paramdesc.registration.copying import deep_copied
from paramdesc.torch_internals.engine import caller_in_torch_engine

__all__ = ["ParametrizationDict"]


class ParametrizationDict(nn.ModuleDict):
    """Maps each parametrized name to its `ParametrizationList`.

    torch's own functions check it to see whether a module is parametrized, and then change the
    module's class, which other modules share here. It answers their questions, and raises before
    they write.
    """

    def __contains__(self, tensor_name: object) -> bool:
        found = tensor_name in self._modules
        function = caller_in_torch_engine()
        # a name that is not here cannot be removed, which torch says itself; registering on
        # one that is here only appends to its chain, and that works
        if function == ("remove_parametrizations" if found else "register_parametrization"):
            raise MixedEnginesError(function)
        return found

    def __delitem__(self, tensor_name: str) -> None:
        if tensor_name in self._modules:
            raise ChainError.deleted(tensor_name)
        super().__delitem__(tensor_name)

    def clear(self) -> None:
        """Raise: the names of the module would have no tensors."""
        for tensor_name in self._modules:
            raise ChainError.deleted(tensor_name)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._modules)

    def __len__(self) -> int:
        if caller_in_torch_engine() == "type_before_parametrizations":
            return 0  # it would answer with the base of the class; the class never changed
        return len(self._modules)

    def __deepcopy__(self, memo: dict[int, Any]) -> ParametrizationDict:
        twin = self.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(deep_copied(self.__dict__, memo))
        return twin
