"""Programs with process groups and tensor subclasses, each for a process of its own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.testing._internal.two_tensor import TwoTensor

import paramdesc as P
from tests.caching.dependencies.kinds import KINDS, Weight, weighing
from tests.helpers import Double, chain_of, original_of


@contextlib.contextmanager
def group(rank: int = 0, size: int = 1, path: str | None = None) -> Iterator[None]:
    stores = vars(dist)
    store = stores["HashStore"]() if path is None else stores["FileStore"](path, size)
    seconds = timedelta(seconds=30)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=seconds)
    try:
        yield
    finally:
        dist.destroy_process_group()


def fully_sharded() -> None:
    """FSDP2 gathers into the same parameter: same object, version and often address."""
    with group():
        mesh = init_device_mesh("cpu", (1,))
        for kind in ("ordinary", "persistent", "auto_cache"):
            for n in (8, 200):
                check_sharded(kind, n, mesh)


@torch.no_grad()
def check_sharded(kind: str, n: int, mesh: Any) -> None:
    layer: Any = weighing(Double(), n)
    fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    if kind == "auto_cache":
        P.auto_cache(layer)
    kept: Any = P.cached(layer, persistent=True)
    with P.cached(layer) if kind == "ordinary" else contextlib.nullcontext():
        for _ in range(5):
            with kept if kind == "persistent" else contextlib.nullcontext():
                value = layer().clone()
            layer.reshard()
            expected = 2 * chain_of(layer).original.full_tensor()
            torch.testing.assert_close(value, expected, msg=f"{kind}, {n}")
            for parameter in layer.parameters():
                parameter.add_(0.1)


def subclasses() -> None:
    """A write to an inner tensor of an original is counted by torch there, and not outside."""
    two: Any = TwoTensor
    with group():
        mesh = init_device_mesh("cpu", (1,))
        for kind in KINDS:
            distributed = distribute_tensor(torch.randn(3, 3), mesh, [Shard(0)])
            check_inner(kind, distributed, lambda t: t.to_local())
            check_inner(kind, two(torch.ones(3, 3), torch.ones(3, 3)), lambda t: t.a)


def check_inner(kind: str, tensor: Any, inner: Any) -> None:
    layer = Weight(3, 3)
    layer.weight = nn.Parameter(tensor)
    P.register_parametrization(layer, "weight", Double()).eval()
    with KINDS[kind](layer) as read:
        read()
        with torch.inference_mode(False), torch.no_grad():
            inner(original_of(layer)).add_(1)
        with torch.inference_mode(kind == "in a persistent block"), torch.no_grad():
            value, expected = inner(read()), 2 * inner(original_of(layer))
        torch.testing.assert_close(value, expected, msg=kind)


broadcast: Any = lambda t: dist.broadcast(t, 0)  # noqa: E731
all_reduce: Any = dist.all_reduce


def collectives() -> None:
    """One of two ranks, by the arguments of the program: rank 0 sends, and both add up."""
    rank, path = int(sys.argv[1]), sys.argv[2]
    with group(rank, 2, path), torch.no_grad():
        for kind in ("auto_cache", "persistent, entered anew"):
            for send in (broadcast, all_reduce):
                torch.manual_seed(rank)
                layer = weighing(Double())
                with KINDS[kind](layer) as read:
                    read()
                    send(original_of(layer))
                    assert torch.equal(read(), 2 * original_of(layer).detach()), kind
