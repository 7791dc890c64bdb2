"""The namespace that holds the parametrized names of a module. Only this file uses wrapt's proxies.

`nn.Module` looks names up in `_buffers` by `in`, `[]`, `[] =` and `del`. An `AttributeNamespace`
replaces this dict, wraps it, and lets the descriptors in it answer. Everything else sees the real
buffers only.
"""

from __future__ import annotations

import copy
import sys
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import wrapt
from torch import Tensor, nn

from paramdesc.caching.read import read
from paramdesc.errors import AssignmentError
from paramdesc.registration.attribute import ParametrizedTensor
from paramdesc.registration.averaging import refuse_averages_of_moving_originals
from paramdesc.registration.copying import ReplicaChains, detach_flat_weights
from paramdesc.registration.distribution import DISTRIBUTED, distribute_originals, refuse_late
from paramdesc.registration.initialisation import initialise_through_inverses
from paramdesc.registration.plain_keys import forget_plain
from paramdesc.registration.post_import import notice_other_libraries
from paramdesc.torch_internals.lending import lend_through
from paramdesc.torch_internals.optimizers import watch_captured_steps
from paramdesc.torch_internals.script import PREPARE, prepare

__all__ = ["AttributeNamespace", "give_back", "namespace_of"]

_REPLICATE = nn.Module._replicate_for_data_parallel.__code__


class Lent(NamedTuple):
    """A tensor that is replaced by a lent one for the time of a call."""

    tensor: Tensor | None


class AttributeNamespace(wrapt.BaseObjectProxy[dict[str, Any]]):
    """A module's buffer dict, in which some names are descriptors.

    The descriptors are values of the wrapped dict. `keys()` includes them; only
    `nn.Module.__dir__` calls it.
    """

    def __init__(self, buffers: dict[str, Any]) -> None:
        super().__init__(buffers)
        self._self_lent: dict[str, bool] = {}  # the names under which a tensor is lent
        lend_through(AttributeNamespace)
        watch_captured_steps()
        initialise_through_inverses()
        refuse_averages_of_moving_originals()
        distribute_originals()
        notice_other_libraries()

    # wrapt's own lookup takes three times as long as object's, on every read of a weight
    __getattribute__ = object.__getattribute__

    # torch.compile looks methods up on __class__ and guards what it finds in __dict__, where
    # a proxy answers for what it wraps
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return AttributeNamespace

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return self.__self_dict__

    def __contains__(self, name: object) -> bool:
        # wrapt's, in C, is closed to torch.compile
        return name in self.__wrapped__ or name in (PREPARE, DISTRIBUTED)

    def __getitem__(self, name: str) -> Any:
        try:
            value = self.__wrapped__[name]
        except KeyError:
            if name == PREPARE:
                return prepare
            if name == DISTRIBUTED:
                refuse_late(sys._getframe(2))
            raise
        if type(value) is ParametrizedTensor:
            return read(value.chains[name])  # the same as its __get__, with one call less
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
        """Remove `name`, as `nn.Module.__setattr__` does before it sets a Parameter or Module.

        Raises:
            AssignmentError: if the name is parametrized.
        """
        if type(self.__wrapped__.get(name)) is ParametrizedTensor:
            raise AssignmentError.replaced(name)
        self.__wrapped__.pop(name, None)

    def install(self, attribute: ParametrizedTensor) -> None:
        """Add the descriptor `attribute` under its name."""
        self.__wrapped__[attribute.name] = attribute

    def lends(self, name: str, value: Any) -> bool:
        """Whether `swap` handles `value` under `name`.

        True for a tensor if the name is parametrized, and for everything that `swap` returned.
        """
        if isinstance(value, (ParametrizedTensor, Lent)):
            return True
        is_ours = name in self._self_lent or type(self.__wrapped__.get(name)) is ParametrizedTensor
        return is_ours and (value is None or isinstance(value, Tensor))

    def swap(self, name: str, value: Any) -> Any:
        """Lend the tensor `value` to `name`, or restore what a swap has returned.

        Nothing is evaluated or assigned. Returns what was there: the descriptor or a `Lent` for a
        tensor, and the tensor for these. A module at two paths is lent to twice, and the first loan
        is returned first: once the descriptor is back, a `Lent` must not replace it.
        """
        current = self.__wrapped__[name]
        if isinstance(value, ParametrizedTensor):
            self._self_lent.pop(name, None)
            self.__wrapped__[name] = value
        elif isinstance(value, Lent):
            if name not in self._self_lent:
                return value.tensor
            self.__wrapped__[name] = value.tensor
        else:
            self.__wrapped__[name] = value
            if name in self._self_lent:
                return Lent(current)
            self._self_lent[name] = True
        return current

    def attribute(self, name: str) -> ParametrizedTensor:
        """The descriptor of a parametrized name."""
        found: ParametrizedTensor = self.__wrapped__[name]
        return found

    def attributes(self) -> Iterator[ParametrizedTensor]:
        """The descriptors in it."""
        return (value for value in self.__wrapped__.values() if type(value) is ParametrizedTensor)

    # the rest of the interface of a dict: the real buffers

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

    def copy(self) -> Any:
        """A dict of the real buffers, or a new namespace for a replica of `nn.DataParallel`.

        A replica gets its chains after its copy of the namespace, so each read looks them up.
        """
        caller = sys._getframe(1)
        if caller.f_code is not _REPLICATE:
            return dict(self.items())
        chains: Any = ReplicaChains(weakref.ref(caller.f_locals["replica"]))
        twin = copy.copy(self)
        for attribute in self.attributes():
            twin.install(ParametrizedTensor(attribute.name, chains))
        return twin

    def __copy__(self) -> AttributeNamespace:
        return AttributeNamespace(dict(self.__wrapped__))

    def __deepcopy__(self, memo: dict[int, Any]) -> AttributeNamespace:
        detach_flat_weights(sys._getframe(2), memo)
        return AttributeNamespace(copy.deepcopy(self.__wrapped__, memo))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return AttributeNamespace, (self.__wrapped__,)


def namespace_of(module: nn.Module) -> AttributeNamespace:
    """The namespace of `module`. Replaces the buffer dict by a namespace if there is none yet."""
    buffers: Any = module._buffers
    if isinstance(buffers, AttributeNamespace):
        return buffers
    namespace = AttributeNamespace(dict(buffers))  # a shallow copy of `module` may share it
    module.__dict__["_buffers"] = namespace
    return namespace


def give_back(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Replace the parametrized `name` of `module` by `tensor`.

    When no parametrized name is left, `module` gets a plain buffer dict again. Another thread may
    be reading: it finds either the tensor, or the descriptor in the old namespace, which still
    works.
    """
    news = dict(namespace_of(module).__wrapped__)
    if isinstance(tensor, nn.Parameter):
        module._parameters[name] = tensor
        del news[name]
    else:
        news[name] = tensor
    is_free = not any(type(value) is ParametrizedTensor for value in news.values())
    module.__dict__["_buffers"] = news if is_free else AttributeNamespace(news)
    forget_plain(module, name)
