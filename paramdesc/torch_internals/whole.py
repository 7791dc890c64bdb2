"""Sharded tensors, gathered to compute with them and written to as a whole."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor

__all__ = ["is_sharded", "whole", "write_whole"]

_MODULE = "torch.distributed.tensor"


def is_sharded(tensor: Tensor) -> bool:
    """Whether `tensor` is a DTensor, distributed over a mesh of devices."""
    distributed: Any = sys.modules.get(_MODULE)
    return distributed is not None and isinstance(tensor, distributed.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """`tensor`, gathered from all ranks if it is sharded. Then all ranks must call this."""
    plain: Any = tensor.detach()
    gathered: Tensor = plain.full_tensor() if is_sharded(tensor) else plain
    return gathered


def write_whole(target: Any, new: Tensor) -> None:
    """Write `new`, equal on all ranks, into `target`, which may be sharded."""
    if is_sharded(target):
        distributed = sys.modules[_MODULE]
        layout = target.device_mesh, target.placements
        new = distributed.distribute_tensor(new, *layout, src_data_rank=None)
    target.copy_(new)
