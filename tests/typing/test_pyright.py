"""What pyright says about right and wrong uses of the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import paramdesc

FOLDER = Path(__file__).parent
SOURCE = Path(paramdesc.__file__).parents[1]
WRONG = """
from torch import nn
from paramdesc import chain_of, get_parametrizations, summary

chain = chain_of(nn.Linear(3, 3), "weight")
chain.original.no_such_thing
chain["weight"]
chain_of(nn.Linear(3, 3), 0)
get_parametrizations(nn.Linear(3, 3))[0]
summary(nn.Linear(3, 3))[0].no_such_thing
"""
RULES = [
    (6, "reportAttributeAccessIssue"),
    (7, "reportCallIssue"),
    (7, "reportArgumentType"),
    (8, "reportArgumentType"),
    (9, "reportArgumentType"),
    (10, "reportAttributeAccessIssue"),
]


def errors_of(path: Path, folder: Path) -> list[dict[str, Any]]:
    """The errors that pyright reports of a file; skips if pyright cannot start."""
    pytest.importorskip("pyright", reason="pyright is not installed")
    (folder / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(SOURCE)]}))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*command, str(path)], cwd=folder, capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)["generalDiagnostics"]
    except (ValueError, KeyError):
        pytest.skip(f"pyright cannot start: {done.stderr[-200:]}")
    return [x for x in found if x["severity"] == "error"]


def test_right_uses(tmp_path: Path) -> None:
    found = errors_of(FOLDER / "right_uses.py", tmp_path)
    assert [(x["range"]["start"]["line"] + 1, x["message"]) for x in found] == []


def test_wrong_uses(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(WRONG)
    found = errors_of(path, tmp_path)
    assert [(x["range"]["start"]["line"] + 1, x.get("rule")) for x in found] == RULES
