"""Runs a function in several processes that form a group of torch.distributed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import ProcessContext, spawn

from tests.helpers import ROOT

__all__ = ["results_of"]


def results_of(
    work: Callable[..., Any], *args: Any, folder: Path, count: int = 2, seconds: float = 120
) -> list[Any]:
    """What `work(rank, *args)` returns in each of `count` processes, on gloo.

    `work` must be importable and its results must be loadable by `torch.load`.
    """
    deadline = time.monotonic() + seconds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(ROOT)])
        context: ProcessContext = spawn(  # type: ignore[no-untyped-call]
            run, args=(count, str(folder), work, args), nprocs=count, join=False
        )
    try:
        while not context.join(timeout=1):
            assert time.monotonic() < deadline, "the processes wait for each other"
    finally:
        for process in context.processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(count)]


def run(rank: int, count: int, folder: str, work: Callable[..., Any], args: tuple[Any]) -> None:
    torch.set_num_threads(1)
    untyped: Any = distributed  # its stub does not know FileStore
    store = untyped.FileStore(f"{folder}/store", count)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=count)
    try:
        torch.save(work(rank, *args), f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()
