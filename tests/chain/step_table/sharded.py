"""Sharded training, each in a process of its own, of a world of one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Adam

from tests.chain.step_table.cases import Case
from tests.chain.step_table.optimizers import by

__all__ = ["CASES"]


def start() -> None:
    if not dist.is_initialized():
        store = Path(tempfile.mkdtemp()) / "store"
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)


def replicated(model: nn.Module) -> Any:
    start()
    return nn.parallel.DistributedDataParallel(model)


def sharded_1(use_orig_params: bool) -> Callable[[nn.Module], Any]:
    def wrap(model: nn.Module) -> Any:
        from torch.distributed.fsdp import FullyShardedDataParallel

        start()
        device = torch.device("cpu")
        return FullyShardedDataParallel(model, use_orig_params=use_orig_params, device_id=device)

    return wrap


def sharded_2(model: Any) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    start()
    mesh = init_device_mesh("cpu", (1,))
    fully_shard(model[0], mesh=mesh)
    return fully_shard(model, mesh=mesh)


def adam(parameters: Any) -> Adam:
    return Adam(parameters, lr=0.01)


def adam_in_shards(parameters: Any) -> Any:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(parameters, optimizer_class=Adam, lr=0.01)


SHARDED = "Distributed training, with Adam"
CASES = [
    Case(SHARDED, "`DistributedDataParallel`", by(adam), replicated, True),
    Case(SHARDED, "`ZeroRedundancyOptimizer`", by(adam_in_shards), replicated, True),
    *(
        Case(
            SHARDED,
            f"`FullyShardedDataParallel(use_orig_params={flag})`",
            by(adam),
            sharded_1(flag),
            True,
        )
        for flag in (True, False)
    ),
    Case(SHARDED, "`fully_shard`", by(adam), sharded_2, True),
]
