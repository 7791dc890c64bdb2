"""Writes the tables of DDP and FSDP2 in the guide: python -m tests.distributed.data_parallel."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.distributed.data_parallel.cases import COUNT, work
from tests.distributed.data_parallel.rows import rows_of
from tests.distributed.table import write
from tests.processes import results_of

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = results_of(work, folder=Path(folder), count=COUNT, seconds=400)
    for section in ("DDP", "FSDP2"):
        write(section, rows_of(section, found[0]))
