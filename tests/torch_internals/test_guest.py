"""A program that does not use paramdesc is the same where another part of the process does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parent / "guest_program.py"


def before_and_after(part: str) -> list[Any]:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAM), part],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("part", ["import", "fingerprint", "program"])
def test_nothing_that_a_program_sees_of_torch_changes(part: str) -> None:
    before, after = before_and_after(part)
    assert before.keys() == after.keys()
    different = {key for key in before if before[key] != after[key]}
    assert not different, [(before[key], after[key]) for key in different]


def test_torch_counts_the_changes_of_plain_parameters_as_ever() -> None:
    before, after = before_and_after("versions")
    assert before == after
