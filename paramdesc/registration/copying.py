"""Support for copies of modules: replicas, and deep copies of recurrent layers."""

from __future__ import annotations

import weakref
from types import FrameType
from typing import Any

from torch import Tensor, nn

__all__ = ["ReplicaChains", "detach_flat_weights"]


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
