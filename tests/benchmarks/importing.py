"""What `import paramdesc` adds to `import torch`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from tests.benchmarks.table import Goal, Table, main
from tests.benchmarks.timing import Clock, in_turns

__all__ = ["tables"]

PROGRAM = """
import time
{before}
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""


def import_of(module: str, before: str) -> Clock:
    """A clock for `import module` in a fresh process that has executed `before`."""
    program = PROGRAM.format(module=module, before=before)

    def clock() -> float:
        command = [sys.executable, "-c", program]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    return clock


def tables(quick: bool) -> Iterator[Table]:
    clocks = {
        "torch": import_of("torch", ""),
        "torch.nn.utils.parametrize": import_of("torch.nn.utils.parametrize", "import torch"),
        "wrapt": import_of("wrapt", "import torch"),
        "paramdesc": import_of("paramdesc", "import torch"),
    }
    series = in_turns(clocks, 1 if quick else 7)
    rows = {name: (series.median(name) * 1e3,) for name in clocks}
    yield Table(
        "Importing",
        "The time of the import in a fresh process, with compiled bytecode. For all but the first, "
        "torch is imported already; paramdesc's includes wrapt's.",
        ("milliseconds",),
        {name if name == "torch" else f"{name}, after torch": row for name, row in rows.items()},
        [Goal("the import of paramdesc after torch, in milliseconds,", 50, rows["paramdesc"][0])],
    )


if __name__ == "__main__":
    main(tables, __doc__)
