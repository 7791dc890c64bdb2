"""Deferred gradients in pipelines, whose stages divide `.grad` after their micro-batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.caching.pipeline_cases import SEVERAL, SINGLE, SPLIT, work
from tests.processes import results_of


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return results_of(work, folder=tmp_path_factory.mktemp("group"), seconds=180)


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
