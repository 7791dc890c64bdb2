"""Chooses the command to run: `python -m paramdesc [COMMAND]`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib.metadata import version

from paramdesc.commands.outcome import WRONG_USE, fail

__all__ = ["main"]

COMMANDS = {
    "demo": "paramdesc.commands.demo.cli",
    "inspect": "paramdesc.commands.inspect",
    "convert": "paramdesc.commands.convert",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, by default the demo, and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--version"]:
        print(f"paramdesc {version('paramdesc')}")
        return 0
    name = "demo"
    if given and not given[0].startswith("-"):
        name = given.pop(0)
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return fail(f"no command {name!r}.{hint} There are {', '.join(COMMANDS)}.", WRONG_USE)
    # one command does not wait for the imports of another
    run: Callable[[Sequence[str]], int] = importlib.import_module(COMMANDS[name]).main
    return run(given)
