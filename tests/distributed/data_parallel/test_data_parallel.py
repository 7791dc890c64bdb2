"""DDP and FSDP2 in four processes, which are started once for all of these tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch

if not torch.distributed.is_available():
    pytest.skip("needs torch.distributed", allow_module_level=True)

from tests.distributed.data_parallel.apart import CASES
from tests.distributed.data_parallel.cases import COUNT, work
from tests.distributed.data_parallel.rows import rows_of
from tests.distributed.table import read
from tests.processes import results_of

Found = list[dict[Any, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("processes")
    return results_of(work, folder=folder, count=COUNT, seconds=400)


@pytest.mark.parametrize("section", ["DDP", "FSDP2"])
def test_the_guide_says_what_comes_out_in_each_process(found: Found, section: str) -> None:
    written = read(section)
    for rank in range(COUNT):
        assert rows_of(section, found[rank]) == written


@pytest.mark.parametrize("section", ["DDP", "FSDP2"])
def test_whatever_runs_is_equal_to_one_process(found: Found, section: str) -> None:
    for rank in range(COUNT):
        for title, cells in rows_of(section, found[rank]).items():
            assert cells["paramdesc"].startswith(("equal", "refused")), (title, found[rank])


def test_deferred_gradients_of_shards_take_one_evaluation(found: Found) -> None:
    for result in found:
        assert result["FSDP2", "paramdesc", "deferred"][1] == [(3, 3)] * 2
        assert result["FSDP2, hybrid sharding, 2 x 2", "paramdesc", "deferred"][1] == [(3, 3)] * 2


def test_auto_cache_evaluates_when_a_shard_has_changed(found: Found) -> None:
    for result in found:
        assert result["serving"] == {
            "at first": 3,
            "unchanged": 0,
            "all shards written to": 3,
            "a shard of one rank written to": 1,
        }


def test_a_gathered_value_is_used_only_while_all_shards_are_the_same(found: Found) -> None:
    for result in found:
        first, zero, again, last = result["written_gathered"]
        assert first == again > zero == 0
        assert last > 100 + first


def test_values_given_to_weights_in_shards_are_used_when_they_are_gathered_again(
    found: Found,
) -> None:
    for result in found:
        assert max(result["assigned"]) < 1e-6, result["assigned"]


def test_calls_before_the_gradients_of_shards_are_refused(found: Found) -> None:
    for result in found:
        for message in result["early"]:
            assert message.startswith("DeferredGradientError"), message
            assert "'0.weight'" in message


def test_warm_starts_are_equal_on_all_ranks_after_a_hundred_steps(found: Found) -> None:
    for others in zip(*(result["warm"] for result in found), strict=True):
        assert all(torch.equal(buffer, others[0]) for buffer in others)


@pytest.mark.parametrize("kind", ["none", "cached"])
def test_gradients_are_sent_while_others_are_computed(found: Found, kind: str) -> None:
    for result in found:
        log = result["overlap", kind]
        last = len(log) - log[::-1].index("arrived")
        assert log[:last].count("sent") > log.count("sent") // 2, log


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", ["cached", "deferred"])
def test_processes_divide_a_batch(found: Found, size: int, case: str) -> None:
    scopes = 4 if case == "cached" else 2  # evaluations of all: for each part, or for each step
    for result in found:
        here = result["divided", size, case]
        assert here["distance"] < 1e-12
        assert here["evaluated"] == scopes * 12 // size
        first = found[0]["divided", size, case]["parameters"]
        assert all(map(torch.equal, here["parameters"], first))


def test_processes_that_read_different_tensors_are_told_so(found: Found) -> None:
    for rank in (0, 1):
        message = found[rank]["divided_badly"][0]
        assert message.startswith("DividedBatchError"), message
        assert "in the same order" in message


def test_a_failure_in_one_process_does_not_stop_the_others(found: Found) -> None:
    failing = found[1]["divided_badly"][1]
    assert failing == "(4, 4)", failing
    assert [found[rank]["divided_badly"][1] for rank in (0, 2, 3)] == ["(4, 4)"] * 3


WORDS = {
    "unreached": ("is at the end of the block", "is in the backward pass of '0.weight'"),
    "unreached, deferred": ("is at the end of the block", "is in the backward pass of '0.weight'"),
    "raised after reading": ("is about to evaluate", "is in the backward pass of '0.weight'"),
    "other order of gradients": (
        "backward passes of different batches; here '2.weight'",
        "backward passes of different batches; here '0.weight'",
    ),
    "without gradients": ("shape [4, 4] without a gradient", "shape [4, 4] with a gradient"),
    "more reads": ("is at the end of the block", "is about to evaluate '1.weight', '2.weight'"),
}


@pytest.mark.parametrize("case", [name for name in CASES if name != "never reads"])
def test_processes_that_do_not_do_the_same_are_all_told(found: Found, case: str) -> None:
    for rank, result in enumerate(found):
        message = result["divided_apart"][case]
        assert message.startswith("DividedBatchError"), message
        assert WORDS[case][rank % 2] in message
        assert "write cached(...) without process_group=" in message


def test_a_process_that_does_not_come_is_waited_for_until_the_timeout(found: Found) -> None:
    for rank, result in enumerate(found):
        message = result["divided_apart"]["never reads"]
        if rank % 2:
            assert message.startswith("DividedBatchError: could not exchange '0.weight'"), message
            assert "new_group(timeout=" in message
        else:
            assert message == "nothing was raised"


@pytest.mark.parametrize("case", ["unused parameters", "fewer inputs"])
def test_processes_that_may_differ_do_not_divide(found: Found, case: str) -> None:
    for result in found:
        alone, divided = result["divided_apart"][case]
        assert alone.abs().max() > 0
        torch.testing.assert_close(divided, alone)
