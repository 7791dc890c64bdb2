"""What mypy --strict says about right and wrong uses of the package, word for word."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from mypy import api

import paramdesc

FOLDER = Path(__file__).parent
SOURCE = Path(paramdesc.__file__).parents[1]
SEVERITY = {"E": "error", "N": "note"}


def expected_lines(path: Path) -> list[str]:
    """The diagnostics that stand below the line they are about, as `# E: ...` or `# N: ...`."""
    found = []
    code_line = 0
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        comment = re.fullmatch(r" *# ([EN]): (.*)", line)
        if comment:
            found.append(f"{path.name}:{code_line}: {SEVERITY[comment[1]]}: {comment[2]}")
        else:
            code_line = number
    return found


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What mypy reports of all files, in one run of its own, with no configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(FOLDER)
        if (SOURCE / "pyproject.toml").exists():  # a checkout; mypy finds installed packages itself
            patch.setenv("MYPYPATH", str(SOURCE))
        cache = tmp_path_factory.mktemp("mypy")
        files = sorted(path.name for path in FOLDER.glob("*_uses.py"))
        options = ["--strict", "--config-file=", f"--cache-dir={cache}", "--no-pretty"]
        report, problems, _ = api.run([*options, "--no-error-summary", *files])
    assert not problems, problems
    return report.splitlines()


@pytest.mark.parametrize("name", ["right_uses.py", "wrong_uses.py"])
def test_reports_what_the_comments_say_and_nothing_else(name: str, reported: list[str]) -> None:
    expected = expected_lines(FOLDER / name)
    assert expected, "the file holds no expectations"
    assert [line for line in reported if line.startswith(f"{name}:")] == expected


def test_reports_nothing_about_the_package_itself(reported: list[str]) -> None:
    assert [line for line in reported if not re.match(r"(right|wrong)_uses\.py:", line)] == []


def test_right_uses_run() -> None:
    runpy.run_path(str(FOLDER / "right_uses.py"))


def test_is_marked_as_typed() -> None:
    assert (Path(paramdesc.__file__).parent / "py.typed").is_file()
