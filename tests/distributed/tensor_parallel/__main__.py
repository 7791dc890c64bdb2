"""Writes the table of the guide: `python -m tests.distributed.tensor_parallel`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.distributed.table import write
from tests.distributed.tensor_parallel.rows import work
from tests.processes import results_of

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write("Tensor parallelism", results_of(work, folder=Path(folder))[0])
