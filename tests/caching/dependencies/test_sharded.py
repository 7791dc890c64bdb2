"""Sharded originals, tensor subclasses and collectives, in fresh processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.helpers import ROOT

SECONDS = 120

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="built without distributed")


def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
    code = f"from tests.caching.dependencies.sharded import {name}; {name}()"
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths})


def assert_all_end_well(*processes: subprocess.Popen[bytes]) -> None:
    try:
        assert [process.wait(SECONDS) for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait(SECONDS)


def test_gathered_parameters_are_read_afresh() -> None:
    assert_all_end_well(start("fully_sharded"))


def test_inner_tensors_of_originals_are_watched() -> None:
    assert_all_end_well(start("subclasses"))


def test_collectives_are_noticed_by_what_lasts(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    assert_all_end_well(*(start("collectives", rank, store) for rank in "01"))
