"""Support for copies of modules: replicas, deep copies, and those of recurrent layers."""

from __future__ import annotations

import copy
import weakref
from collections import OrderedDict
from types import FrameType
from typing import Any

from torch import Tensor, nn

__all__ = ["ReplicaChains", "deep_copied", "detach_flat_weights"]

_ATOMIC = frozenset((bool, int, float, str, type(None)))
_CONTAINERS = frozenset((dict, OrderedDict, set))


def deep_copied(state: dict[str, Any], memo: dict[int, Any]) -> dict[str, Any]:
    """A deep copy of the attributes of a module.

    Most of them are empty containers of hooks, and `copy.deepcopy` takes microseconds for each.
    """
    twin: dict[str, Any] = {}
    for name, value in tuple(state.items()):  # another thread may add one
        cls = type(value)
        if cls in _CONTAINERS and not value and id(value) not in memo:
            memo[id(value)] = value = cls()
        elif cls not in _ATOMIC:
            value = copy.deepcopy(value, memo)
        twin[name] = value
    return twin


class ReplicaChains:
    """The chains of a replica by tensor name. Each read looks them up in the replica."""

    def __init__(self, replica: weakref.ref[nn.Module]) -> None:
        self.replica = replica

    def __getitem__(self, tensor_name: str) -> nn.Module:
        chains: Any = self.replica()
        chain: nn.Module = chains._modules["parametrizations"]._modules[tensor_name]
        return chain


def detach_flat_weights(copier: FrameType, memo: dict[int, Any]) -> None:
    """Make deep copies of `nn.RNN`, `nn.LSTM` and `nn.GRU` possible.

    They keep a list of their weights, whose values have graphs, and `copy.deepcopy` refuses these.
    `copier` is the frame that copies the attributes of a module.
    """
    state = copier.f_locals.get("x")
    for value in state.get("_flat_weights", ()) if isinstance(state, dict) else ():
        if isinstance(value, Tensor) and not value.is_leaf:
            memo[id(value)] = value.detach().clone()
