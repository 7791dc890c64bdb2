"""What copies of modules need that their namespace cannot tell by itself."""

from __future__ import annotations

import weakref
from types import FrameType
from typing import Any

from torch import Tensor, nn

__all__ = ["ReplicaChains", "detach_flat_weights"]


class ReplicaChains:
    """The chains of one replica of a module by tensor name, looked up in it at each read."""

    def __init__(self, replica: weakref.ref[nn.Module]) -> None:
        self.replica = replica

    def __getitem__(self, tensor_name: str) -> nn.Module:
        chains: Any = self.replica()
        chain: nn.Module = chains._modules["parametrizations"]._modules[tensor_name]
        return chain


def detach_flat_weights(copier: FrameType, memo: dict[int, Any]) -> None:
    """Let `nn.RNN`, `nn.LSTM` and `nn.GRU` be deep-copied.

    They keep the values of their weights in a list of their own, which `copy.deepcopy` would
    refuse for its graphs. `copier` is the frame that copies the attributes of a module.
    """
    state = copier.f_locals.get("x")
    for value in state.get("_flat_weights", ()) if isinstance(state, dict) else ():
        if isinstance(value, Tensor) and not value.is_leaf:
            memo[id(value)] = value.detach().clone()
