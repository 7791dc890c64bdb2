"""The state of a warm start follows each way to make a training step, and nothing else.

The rows of the table in the guide, measured again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.chain.step_table.cases import FOLLOWS, STAYS, Case
from tests.chain.step_table.page import CASES, PAGE, ROWS, in_new_process, read, row
from tests.chain.step_table.subjects import SPECTRAL_NORM, SUBJECTS, TORCH
from tests.helpers import chain_of

WRITTEN = read()
UNSEEN = ("By hand: `p.data -= lr * p.grad`", "By hand: `p.data = p.data - lr * p.grad`")
"""Only the numbers show these steps."""

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)


def test_the_page_has_a_row_for_each_case_and_no_other() -> None:
    missing = [title for title in ROWS if title not in WRITTEN]
    assert not missing, f"run python -m tests.chain.step_table: {PAGE} has no row for {missing}"
    assert list(WRITTEN) == list(ROWS)


@pytest.mark.parametrize("title", ROWS)
def test_the_page_says_what_is_measured(title: str) -> None:
    case = ROWS[title]
    if isinstance(case, Case) and case.is_distributed and not torch.distributed.is_available():
        pytest.skip("needs torch.distributed")
    assert row(title) == WRITTEN[title]


def test_the_page_says_that_ours_follows_steps_and_nothing_else() -> None:
    for title, (_, *ours, without_samples) in WRITTEN.items():
        expected = STAYS if title.startswith("No step") else FOLLOWS
        assert set(ours) - {""} == {expected}, title
        assert without_samples == (STAYS if title in UNSEEN else expected), title


@every_case
def test_each_step_moves_the_state_once(case: Case) -> None:
    if case.is_distributed:
        pytest.skip("in a process of its own, by the table")
    for subject in filter(case.takes, SUBJECTS):
        if subject is not TORCH:
            moves, _ = case.train(subject, 5)
            assert case.evaluates_often or moves == list(range(6))


@pytest.mark.parametrize(
    "title",
    [
        "torch.optim: Adam, `fused=True`",
        "torch.optim: Adam, `torch.compile(optimizer.step, backend='aot_eager')`",
        "An optimizer that is not torch's: writes to `p.data`, then clears the gradients",
        "An optimizer that is not torch's: trains a flat buffer that the parameters are views of",
        *UNSEEN,
    ],
)
def test_steps_are_seen_in_a_process_that_has_opened_no_scope(title: str) -> None:
    assert in_new_process(title) == WRITTEN[title]


@pytest.mark.parametrize(
    "title", ["torch.optim: SGD, in a loop", "torch.optim: Adam, `fused=True`"]
)
def test_a_state_that_stayed_would_leave_another_norm(title: str) -> None:
    def frozen(model: Any) -> Any:
        chain_of(model[0])[0].eval()
        return model

    case = ROWS[title]
    assert isinstance(case, Case)
    case = replace(case, wrap=frozen)
    _, norm = case.train(SPECTRAL_NORM, 150)
    assert norm > 1.5
    assert case.verdict(SPECTRAL_NORM) == STAYS
