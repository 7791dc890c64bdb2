"""The row about sharded training: FSDP gathers a parameter into the same tensor again."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tests.caching.dependencies.kinds import Reader, weighing
from tests.helpers import Double, chain_of

__all__ = ["try_gathered"]


def try_gathered(case: Any, kind: Reader) -> str:
    """Whether each call of a sharded layer uses what was gathered for it."""
    store: Any = dist.__dict__["HashStore"]()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        return read_gathered(kind)
    finally:
        dist.destroy_process_group()


def read_gathered(kind: Reader) -> str:
    layer = weighing(Double(), 8)
    fully_shard(layer, mesh=init_device_mesh("cpu", (1,)), reshard_after_forward=True)
    sharded: Any = layer
    with kind(layer) as read:
        for _ in range(3):
            value = read().detach().clone()
            with torch.inference_mode(False), torch.no_grad():
                sharded.reshard()
                if not torch.equal(value, 2 * chain_of(layer).original.full_tensor()):
                    return "**no**"
                for parameter in layer.parameters():
                    parameter.add_(0.1)
    return "yes"
