"""Tensor parallelism in two processes, registered before and after."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.helpers import ROOT

if not torch.distributed.is_available():
    pytest.skip("needs torch.distributed", allow_module_level=True)

from torch.distributed.device_mesh import init_device_mesh

from tests.distributed.table import read
from tests.distributed.tensor_parallel.maps import find_faults, find_faults_in_parts
from tests.distributed.tensor_parallel.models import (
    MODELS,
    SCOPES,
    TIES,
    compare,
    compare_tied,
    count_messages,
    largest_messages,
    others,
)
from tests.distributed.tensor_parallel.rows import measure
from tests.processes import results_of

RUNS = [
    *((name, "linear", True, "none") for name in MODELS),
    *((name, "linear", False, "none") for name in ("SpectralNorm", "lora", "a chain")),
    *(("orthogonal", "linear", True, scope) for scope in SCOPES if scope != "none"),
    ("SpectralNorm", "linear", True, "cached"),
    *(("SpectralNorm", plan, True, "none") for plan in ("embedding", "embedding by rows")),
]

TIED = [
    *((name, tie, "none") for tie in TIES for name in ("orthogonal", "weight_norm", "LowRank")),
    *(("SpectralNorm", tie, scope) for tie in TIES for scope in ("cached", "deferred")),
]
OTHERS = [
    "after a failure",
    "buffer",
    "meta",
    "shared in one call",
    "written without a count",
    "compiled",
]


def fault(run: Callable[..., None], case: tuple[Any, ...], mesh: Any) -> str:
    """What is wrong with a run, if anything."""
    try:
        run(*case, mesh)
    except Exception:
        return traceback.format_exc()
    return ""


def work(rank: int) -> dict[str, Any]:
    mesh = init_device_mesh("cpu", (2,))
    return {
        "maps": find_faults(mesh),
        "in parts": find_faults_in_parts(mesh),
        "runs": {case: fault(compare, case, mesh) for case in RUNS},
        "tied": {case: fault(compare_tied, case, mesh) for case in TIED},
        "rows": measure(mesh),
        "messages": count_messages(mesh),
        "largest": largest_messages(mesh),
        "others": others(mesh),
    }


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return results_of(work, folder=tmp_path_factory.mktemp("group"), seconds=500)


def test_every_map_is_as_in_one_process(group: list[dict[str, Any]]) -> None:
    for found in group:
        assert found["maps"] == {}


def test_spectral_norms_in_parts_are_as_in_one_process(group: list[dict[str, Any]]) -> None:
    for found in group:
        assert found["in parts"] == {}


def test_spectral_norms_in_parts_send_vectors(group: list[dict[str, Any]]) -> None:
    for found in group:
        assert found["largest"] == {"rows": 40, "columns": 40}  # the weight has 40 x 24 entries


@pytest.mark.parametrize("case", RUNS, ids=str)
def test_training_is_as_in_one_process(group: list[dict[str, Any]], case: Any) -> None:
    for found in group:
        assert not found["runs"][case], found["runs"][case]


@pytest.mark.parametrize("case", TIED, ids=str)
def test_weights_stay_tied_in_different_shards(group: list[dict[str, Any]], case: Any) -> None:
    for found in group:
        assert not found["tied"][case], found["tied"][case]


def test_the_table_of_the_guide(group: list[dict[str, Any]]) -> None:
    for found in group:
        assert read("Tensor parallelism") == found["rows"]


def test_maps_that_split_send_nothing(group: list[dict[str, Any]]) -> None:
    for found in group:
        assert found["messages"] == {
            "Positive": [0, 0],
            "MaxNorm": [0, 1],  # the norms of rows, which are cut in the second case
            "WeightNorm": [0, 1],
            "LowRank": [0, 0],
            "Symmetric": [1, 1],
        }


@pytest.mark.parametrize("name", OTHERS)
def test_distributing(group: list[dict[str, Any]], name: str) -> None:
    assert all(found["others"][name] for found in group)


def test_a_late_import_is_told() -> None:
    script = """
    import torch
    import paramdesc as P
    layer = P.register_parametrization(torch.nn.Linear(4, 4), "weight", torch.nn.Identity())
    assert not hasattr(layer, "_distribute_module_applied")
    from torch.distributed.tensor import distribute_module
    for mesh in ("not reached", None):
        try:
            distribute_module(layer, mesh)
        except Exception as error:
            print(type(error).__name__, error)
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    first, second = process.stdout.splitlines()
    assert first.startswith("DistributionError this parametrized module is distributed")
    assert "DistributionError" not in second
