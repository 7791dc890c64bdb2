"""The place where a module's parametrized names live: the one door to wrapt's proxies.

`nn.Module` looks names up in `_buffers` by `in`, `[]`, `[] =` and `del`. An
`AttributeNamespace` stands there in place of the dict, wraps it, and lets the
descriptors in it answer. Everything else sees the real buffers only.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from typing import Any

import wrapt
from torch import nn

from paramdesc.attribute import ParametrizedTensor
from paramdesc.errors import AssignmentError

__all__ = ["AttributeNamespace"]


class AttributeNamespace(wrapt.BaseObjectProxy):  # type: ignore[misc]  # untyped where wrapt is
    """A module's buffer dict, in which some names are descriptors.

    The descriptors are values of the wrapped dict, so that `in` is answered in C. Asking
    for `keys()` shows them too: `nn.Module.__dir__` does, and nothing else.
    """

    # wrapt's own lookup takes three times as long as object's, on every read of a weight
    __getattribute__ = object.__getattribute__

    # torch.compile looks methods up on __class__ and guards what it finds in __dict__, where
    # a proxy answers for what it wraps
    @property
    def __class__(self) -> type:
        return AttributeNamespace

    @property
    def __dict__(self) -> dict[str, Any]:
        return self.__self_dict__  # type: ignore[no-any-return]

    def __getitem__(self, name: str) -> Any:
        value = self.__wrapped__[name]
        if type(value) is ParametrizedTensor:
            return value.__get__(self)
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        current = self.__wrapped__.get(name)
        if type(current) is ParametrizedTensor:
            current.__set__(self, value)
        else:
            self.__wrapped__[name] = value

    def __delitem__(self, name: str) -> None:
        current = self.__wrapped__.get(name)
        if type(current) is ParametrizedTensor:
            current.__delete__(self)
        else:
            del self.__wrapped__[name]

    def discard(self, name: str) -> None:
        """Make room for a Parameter or Module, as `nn.Module.__setattr__` asks for it.

        Raises:
            AssignmentError: if the name is parametrized.
        """
        if type(self.__wrapped__.get(name)) is ParametrizedTensor:
            raise AssignmentError.replaced(name)
        self.__wrapped__.pop(name, None)

    def install(self, attribute: ParametrizedTensor) -> None:
        """Let `attribute` answer for its name."""
        self.__wrapped__[attribute.name] = attribute

    def uninstall(self, name: str) -> None:
        """Let the name be free again."""
        del self.__wrapped__[name]

    def attributes(self) -> Iterator[ParametrizedTensor]:
        """The descriptors in it."""
        return (value for value in self.__wrapped__.values() if type(value) is ParametrizedTensor)

    # what a mapping is asked for besides: the real buffers

    def items(self) -> list[tuple[str, Any]]:
        return [
            (name, value)
            for name, value in self.__wrapped__.items()
            if type(value) is not ParametrizedTensor
        ]

    def values(self) -> list[Any]:
        return [value for _, value in self.items()]

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self.items()])

    def __len__(self) -> int:
        return len(self.items())

    def __bool__(self) -> bool:
        return len(self) > 0

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self.__wrapped__ else default

    def pop(self, name: str, *default: Any) -> Any:
        if name not in self.__wrapped__ and default:
            return default[0]
        value = self[name]
        del self[name]
        return value

    def __repr__(self) -> str:
        return f"AttributeNamespace({dict(self.items())!r}, {list(self.attributes())!r})"

    # copies

    def rebound(self, parametrizations: nn.ModuleDict) -> None:
        """Let every descriptor here read the chains in `parametrizations`."""
        for attribute in list(self.attributes()):
            self.install(ParametrizedTensor(attribute.name, parametrizations))

    def copy(self) -> AttributeNamespace:
        """The namespace for one replica of the module, as `nn.DataParallel` makes them.

        The replica of `parametrizations` is made later, and claims the copy then.
        """
        twin = AttributeNamespace(dict(self.__wrapped__))
        for attribute in self.attributes():
            attribute.parametrizations.await_replica(weakref.ref(twin))
            break
        return twin

    def __copy__(self) -> AttributeNamespace:
        return AttributeNamespace(dict(self.__wrapped__))

    def __deepcopy__(self, memo: dict[int, Any]) -> AttributeNamespace:
        return AttributeNamespace(copy.deepcopy(self.__wrapped__, memo))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return AttributeNamespace, (self.__wrapped__,)
