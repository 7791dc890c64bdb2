"""Scopes around pipelines, whose stages divide `.grad` after their micro-batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import paramdesc as P
from paramdesc.caching.pipelines import deferring
from tests.caching.pipeline_cases import SEVERAL, SINGLE, SPLIT, part, work
from tests.processes import results_of


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return results_of(work, folder=tmp_path_factory.mktemp("group"), seconds=180)


@pytest.mark.parametrize("case", [*SINGLE, *SEVERAL, *SPLIT, "two steps in one scope"])
def test_stages_get_the_gradients_without_a_scope(group: list[dict[str, Any]], case: str) -> None:
    for found in group:
        expected = found[case].pop("none")
        assert len(found[case]) >= 3
        for actual in found[case].values():
            for mine, theirs in zip(actual, expected, strict=True):
                assert theirs.abs().max() > 0
                torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("case", SINGLE)
def test_an_ordinary_scope_evaluates_once_in_a_schedule(
    group: list[dict[str, Any]], case: str
) -> None:
    for found in group:
        hits, misses, _ = found["reads"][case]
        assert misses == 6  # of two tensors: before, in the schedule, and after it
        assert hits == 8  # torch's trial of the shapes comes before the four micro-batches


def test_a_stage_that_fails_leaves_its_scope_as_it_was() -> None:
    model: Any = part(0)
    chains = [model[place].parametrizations.weight for place in (0, 2)]

    def fail(scope: Any) -> None:
        with deferring([scope], chains, is_single=False):
            assert model[0].weight.is_leaf
            model[0].weight.sum().backward()
            raise ValueError("a stage fails")

    with P.cached(model, batched=True) as scope:
        assert not model[0].weight.is_leaf
        with pytest.raises(ValueError, match="a stage fails"):
            fail(scope)
        assert not model[0].weight.is_leaf
        assert all(x.grad is None for x in model.parameters())
        assert scope.batched


@pytest.mark.parametrize("case", SPLIT)
def test_split_backward_passes_are_refused_in_all_processes(
    group: list[dict[str, Any]], case: str
) -> None:
    for found in group:
        assert "Write cached(...) without deferred=True" in found["refusals"][case]


def test_split_backward_passes_of_other_tensors_run(group: list[dict[str, Any]]) -> None:
    assert all(found["allowed"] for found in group)
