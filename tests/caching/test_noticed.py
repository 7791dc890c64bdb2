"""The table in the guide says what kept values notice, as its cases show."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.caching.noticed.table import PAGE, block, replaced_in
from tests.helpers import ROOT


def test_the_page_has_the_table_that_the_cases_show() -> None:
    """In a fresh process: the cases set up hooks, modes and a process group."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-W", "ignore", "-m", "tests.caching.noticed", "--check"]
    environment = {**os.environ, "PYTHONPATH": paths}
    run = subprocess.run(
        command, env=environment, cwd=ROOT, timeout=300, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("outcome", ["yes", "**no**", "not kept"])
def test_another_outcome_is_another_page(outcome: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    row = {("Hooks", "a hook that is added"): (outcome, "-", "-")}
    assert f"| a hook that is added | {outcome} | - |" in replaced_in(text, block(row))
    assert replaced_in(text, block(row)) != text
