"""On a GPU, every map keeps its documented number of launches, and the host never waits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.benchmarks.launches import BEGIN, END, documented, put
from tests.benchmarks.pretended import ALIKE, Count, count, counted, parametrized, set_up
from tests.benchmarks.stored import DETAILS
from tests.benchmarks.table import Table
from tests.helpers import ROOT
from tests.parametrizations.all_cases import CASES

Counts = dict[str, dict[str, Count]]

KNOWN: dict[str, tuple[Callable[[Tensor], Tensor], Count]] = {
    "a view": (lambda X: X.mT, Count(0, 0)),
    "one operation": (torch.exp, Count(1, 1)),
    "two operations": (lambda X: X.tril().exp(), Count(2, 2)),
    "a product": (lambda X: X @ X, Count(1, 3)),
    "a look": (lambda X: X * X.sum().item(), Count(0, 0, ("aten._local_scalar_dense.default",))),
    "a branch": (
        lambda X: X if X[0, 0] > 0 else -X,
        Count(0, 0, ("aten._local_scalar_dense.default",)),
    ),
    "an error code": (torch.linalg.inv, Count(2, 3, ("_linalg_check_errors",))),
    "no error code": (lambda X: torch.linalg.inv_ex(X)[0], Count(1, 3)),
    "a number moved": (
        lambda X: X * torch.tensor(2.0, device=X.device),
        Count(0, 0, ("a tensor made of a number of the host",)),
    ),
    "a number": (lambda X: X * torch.tensor(2.0), Count(1, 1)),
}
"""Functions, with what the counter is to find."""


@pytest.fixture(scope="module")
def counts() -> Counts:
    return counted()


@pytest.mark.parametrize("name", CASES)
def test_case_keeps_its_launches_and_does_not_wait(name: str, counts: Counts) -> None:
    found = counts["cases"][name]
    assert not found.waits
    assert found.launches <= documented(DETAILS)[name]


@pytest.mark.parametrize("name", ALIKE)
def test_weights_that_are_alike_start_little_more_than_one(name: str, counts: Counts) -> None:
    found = {case: count.launches for case, count in counts["batches"].items()}
    one = found[f"{name}, 1, one by one"]
    assert found[f"{name}, 48, one by one"] >= 48 * one
    assert found[f"{name}, 48, together"] <= one + 4 + 2 * 48
    assert not counts["batches"][f"{name}, 48, together"].waits


def test_the_page_tells_of_every_case_and_no_other() -> None:
    assert list(documented(DETAILS)) == list(CASES)


def count_known() -> None:
    """What the counter finds, for the process that counts."""
    set_up()
    found = {name: count(parametrized(f, torch.eye(3) + 1)) for name, (f, _) in KNOWN.items()}
    print(json.dumps({name: repr(count) for name, count in found.items()}))


def test_the_counter_finds_what_is_known() -> None:
    code = "from tests.benchmarks.test_launches import count_known; count_known()"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert json.loads(answer.stdout) == {name: repr(known) for name, (_, known) in KNOWN.items()}


def test_only_the_part_with_the_launches_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\nText.\n", encoding="utf-8")
    for figure in (1.0, 2.0):
        put([Table("T", "Text.", ("a",), {"row": (figure,)})], page)
    assert page.read_text(encoding="utf-8") == (
        f"# Page\n\nText.\n\n{BEGIN}\n## T\n\nText.\n\n"
        f"|     |   a |\n| --- | --: |\n| row |   2 |\n\n{END}"
    )
