"""Deferred gradients in pipelines, whose stages divide `.grad` after their micro-batches."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.spawn import ProcessContext, spawn

from tests.caching.pipeline_cases import SEVERAL, SINGLE, SPLIT, work
from tests.helpers import ROOT


def run_group(folder: Path) -> list[dict[str, Any]]:
    """What the two processes have found, in three minutes at most."""
    deadline = time.monotonic() + 180
    context: ProcessContext = spawn(  # type: ignore[no-untyped-call]
        work, args=(str(folder),), nprocs=2, join=False
    )
    try:
        while not context.join(timeout=1):
            assert time.monotonic() < deadline, "the processes wait for each other"
    finally:
        for process in context.processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(ROOT)])
        yield run_group(tmp_path_factory.mktemp("group"))


@pytest.mark.parametrize("case", [*SINGLE, *SEVERAL, "two steps in one scope"])
def test_stages_get_the_gradients_without_deferral(group: list[dict[str, Any]], case: str) -> None:
    for found in group:
        expected, actual = found[case]
        for mine, theirs in zip(actual, expected, strict=True):
            assert theirs.abs().max() > 0
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("case", SPLIT)
def test_split_backward_passes_are_refused_in_all_processes(
    group: list[dict[str, Any]], case: str
) -> None:
    for found in group:
        assert "Write cached(...) without deferred=True" in found["refusals"][case]


def test_split_backward_passes_of_other_tensors_run(group: list[dict[str, Any]]) -> None:
    assert all(found["allowed"] for found in group)
