"""The scripts in the pages of the docs run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

PAGES = ["accelerate", "lightning", "peft", "transformers"]


@pytest.mark.parametrize("name", PAGES)
def test_the_script_of_a_page_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name, reason=f"needs {name}: the extra `integrations`")
    text = (ROOT / "docs" / "integrations" / f"{name}.md").read_text()
    script = re.findall(r"```python\n(.*?)```", text.partition("## The script")[2], re.DOTALL)
    assert len(script) == 1
    monkeypatch.chdir(tmp_path)
    exec(compile(script[0], f"{name}.md", "exec"), {"__name__": "__main__"})


def test_the_example_of_a_server_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "docs" / "examples" / "serving.py")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.returncode == 0, done.stderr
    assert "fork ok" in done.stdout
    assert "spawn ok" in done.stdout
