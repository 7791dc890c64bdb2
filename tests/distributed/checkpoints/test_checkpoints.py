"""Saved on two processes, loaded on one, two and four."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
import torch

if not torch.distributed.is_available():
    pytest.skip("needs torch.distributed", allow_module_level=True)

from tests.distributed.checkpoints.runs import (
    KINDS,
    PLAIN_KINDS,
    STATES,
    resumed,
    saved,
    with_plain,
)
from tests.processes import results_of


def save_and_load(rank: int, folder: str) -> dict[str, Any]:
    first = {kind: saved(folder, kind) for kind in KINDS}
    plain = {kind: fault(folder, kind) for kind in PLAIN_KINDS}
    return {"saved": first, "plain": plain, **load(rank, folder)}


def load(rank: int, folder: str) -> dict[str, Any]:
    return {"resumed": {kind: resumed(folder, kind) for kind in KINDS}}


def fault(folder: str, kind: str) -> str:
    """What is wrong with plain checkpoints, if anything."""
    try:
        with_plain(folder, kind)
    except Exception:
        return traceback.format_exc()
    return ""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What each process finds, by the number of processes."""
    folder = str(tmp_path_factory.mktemp("checkpoints"))

    def run(work: Any, count: int) -> list[dict[str, Any]]:
        place: Path = tmp_path_factory.mktemp("group")
        return results_of(work, folder, folder=place, count=count, seconds=300)

    two = run(save_and_load, 2)
    return {1: run(load, 1), 2: two, 4: run(load, 4)}


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_resumed(found: dict[int, list[dict[str, Any]]], kind: str, count: int) -> None:
    then, later = found[2][0]["saved"][kind]
    assert set(STATES) < set(then)
    for process in found[count]:
        resumed_then, resumed_later = process["resumed"][kind]
        for name, x in then.items():
            assert torch.equal(resumed_then[name], x), name
        for name, x in later.items():
            assert not name.endswith("original") or not torch.equal(x, then[name])
            torch.testing.assert_close(resumed_later[name], x, atol=1e-6, rtol=1e-5)
            assert count != 2 or torch.equal(resumed_later[name], x), name


@pytest.mark.parametrize("kind", PLAIN_KINDS)
def test_plain_checkpoints_are_loaded_and_saved(
    found: dict[int, list[dict[str, Any]]], kind: str
) -> None:
    for process in found[2]:
        assert not process["plain"][kind], process["plain"][kind]
