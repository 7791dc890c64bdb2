"""How a command ends: with an exit code, and one line after a failure."""

from __future__ import annotations

import sys
from collections.abc import Callable

__all__ = ["FAILED", "INTERRUPTED", "WRONG_USE", "Refusal", "fail", "in_one_line"]

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130  # exit codes


class Refusal(Exception):  # noqa: N818 # the program is right
    """The command cannot be carried out; the message says why, and what to do."""


def fail(message: str, code: int) -> int:
    """Print `message` in one line on standard error, and return `code`."""
    print(f"python -m paramdesc: {' '.join(message.split())}", file=sys.stderr)
    return code


def in_one_line(command: Callable[[], None]) -> int:
    """Run `command` and return the exit code. Errors and interrupts print one line."""
    try:
        command()
    except Refusal as refusal:
        return fail(str(refusal), WRONG_USE)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except (RuntimeError, ValueError) as error:  # tensors that do not belong together
        return fail(f"the file is damaged, or does not hold what its names say: {error}", WRONG_USE)
    except OSError as error:
        where = f" {str(error.filename)!r}" if error.filename else ""
        return fail(f"cannot read or write{where}: {error.strerror or error}", WRONG_USE)
    return 0
