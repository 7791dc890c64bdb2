"""Copies, files and replicas"""

from __future__ import annotations

import copy
import importlib
import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, distributed, nn

from tests.worlds.case import of_loop
from tests.worlds.checks import WrongError
from tests.worlds.engines import Engine

__all__ = ["deep_copy", "distributed_data_parallel", "pickled", "replicas", "saved"]


def deep_copy(engine: Engine) -> None:
    """`copy.deepcopy`"""
    case = of_loop(engine)
    copied = copy.deepcopy(case.model)
    case.check(copied, copied)
    case.check(case.model)


def pickled(engine: Engine) -> None:
    """`pickle`"""
    case = of_loop(engine)
    copied = pickle.loads(pickle.dumps(case.model))
    case.check(copied, copied)


def saved(engine: Engine) -> None:
    """`torch.save` and `torch.load` of the whole model"""
    case, file = of_loop(engine), io.BytesIO()
    torch.save(case.model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    case.check(loaded, loaded)


def replicas(engine: Engine) -> None:
    """the replicas of `nn.DataParallel`"""
    parallel: Any = importlib.import_module("torch.nn.parallel.replicate")

    def broadcast(tensors: Any, devices: Any, detach: bool = False) -> list[list[Tensor]]:
        return [[x.detach() if detach else x.clone() for x in tensors] for _ in devices]

    case = of_loop(engine)
    with (  # there is one device: copies in the place of transfers
        patch.object(parallel, "_get_device_index", lambda device, optional: device),
        patch.object(parallel, "_broadcast_coalesced_reshape", broadcast),
    ):
        for index in (0, 1):
            case.check(lambda x, i=index: parallel.replicate(case.model, [0, 1])[i](x))


@contextmanager
def process_group() -> Iterator[None]:
    untyped: Any = distributed  # its stub does not know HashStore
    untyped.init_process_group("gloo", store=untyped.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        untyped.destroy_process_group()


def distributed_data_parallel(engine: Engine) -> None:
    """`nn.parallel.DistributedDataParallel`, in a process group of one"""
    if distributed.is_initialized():
        raise WrongError("a process group is left over")
    case = of_loop(engine)
    with process_group():
        case.check(nn.parallel.DistributedDataParallel(case.model))
