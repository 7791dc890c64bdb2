"""The data descriptor behind a parametrized name."""

from __future__ import annotations

from typing import Any, overload

from torch import Tensor
from torch.nn import Module

from paramdesc.caching.read import read
from paramdesc.errors import AssignmentError

__all__ = ["ParametrizedTensor"]


class ParametrizedTensor:
    """A tensor that is a function of others.

    - Reading it gives the value of its chain of maps, a kept one in a cache scope.
    - Writing a tensor sends it through the chain's `right_inverse` into the originals.
    - Deleting it is refused.

    It belongs to the namespace of one module, not to a class, so it gets its chain instead of an
    instance: `chains` is the dict in which the module's container keeps its chains.
    """

    __slots__ = ("chains", "name")

    def __init__(self, name: str, chains: dict[str, Module]) -> None:
        self.name = name
        self.chains = chains

    @overload
    def __get__(self, instance: None, owner: type) -> ParametrizedTensor: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Tensor: ...
    def __get__(
        self, instance: object | None, owner: type | None = None
    ) -> Tensor | ParametrizedTensor:
        if instance is None:
            return self
        value: Tensor = read(self.chains[self.name])
        return value

    def __set__(self, instance: object, value: Any) -> None:
        if value is None:
            raise AssignmentError.emptied(self.name)
        chain: Any = self.chains[self.name]
        chain.right_inverse(value)

    def __delete__(self, instance: object) -> None:
        raise AssignmentError.deleted(self.name)

    def __repr__(self) -> str:
        return f"<ParametrizedTensor {self.name!r}>"
