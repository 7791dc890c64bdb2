"""`python -m paramdesc`: which command runs, and how progress shows itself."""

from __future__ import annotations

import io
import sys
from importlib.metadata import version

import pytest

from paramdesc.commands.cli import main
from paramdesc.commands.progress import Progress


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"paramdesc {version('paramdesc')}\n"


def test_without_a_word_it_is_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    def run(arguments: list[str]) -> int:
        given.append(list(arguments))
        return 7

    monkeypatch.setattr("paramdesc.commands.demo.cli.main", run)
    assert main([]) == main(["demo"]) == main(["--quick"]) == main(["demo", "--quick"]) == 7
    assert given == [[], [], ["--quick"], ["--quick"]]


@pytest.mark.parametrize(("word", "hint"), [("inspekt", " Did you mean 'inspect'?"), ("xyz", "")])
def test_unknown_commands_are_wrong_use(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == 2
    expected = f"no command {word!r}.{hint} There are demo, inspect, convert.\n"
    assert capsys.readouterr().err == f"python -m paramdesc: {expected}"


@pytest.mark.parametrize("command", ["demo", "inspect", "convert"])
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert "usage: python -m paramdesc" in capsys.readouterr().out


class Terminal(io.StringIO):
    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


def shown(
    monkeypatch: pytest.MonkeyPatch, *, seconds: float, is_terminal: bool, quiet: bool = False
) -> str:
    """What is shown of 100 steps that take `seconds` together."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    terminal = Terminal(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(100, quiet=quiet)
    for _ in range(100):
        now += seconds / 100
        progress.advance(1)
    progress.close()
    return terminal.getvalue()


def test_progress_of_more_than_two_seconds_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, seconds=1.9, is_terminal=True) == ""
    bar = shown(monkeypatch, seconds=10, is_terminal=True)
    assert bar.endswith("\r[########################] 100%,   0 s left \n")
    assert max(map(len, bar.split("\r"))) < 60
    assert shown(monkeypatch, seconds=10, is_terminal=True, quiet=True) == ""


def test_progress_in_a_log_is_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, seconds=10, is_terminal=False).splitlines()
    assert lines == [f"{tenth}0% done" for tenth in range(2, 11)]
