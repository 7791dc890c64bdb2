"""Measures what paramdesc costs on a GPU, and writes docs/gpu.md. Takes less than four minutes."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tests.benchmarks.gpu.clocks import Budget
from tests.benchmarks.gpu.tables import COUNT, Setting, tables
from tests.benchmarks.timing import environment

PAGE = Path(__file__).parents[3] / "docs" / "gpu.md"
SECONDS = 150.0
"""For the measurements. Registering the layers takes some more time."""
INTRODUCTION = """\
# On a GPU

What paramdesc costs on a GPU, next to `torch.nn.utils.parametrizations`.

Small weights are bound by the host: it takes 8 to 10 microseconds to launch an operation, so the
number of operations decides. [Each parametrization](development/benchmarks.md#launches-on-a-gpu)
has been counted. [Streams and CUDA graphs](guide/graphs.md) shows how to launch a whole training
step at once.

`python -m tests.benchmarks.gpu` writes this page. It needs a CUDA device, and takes less than four
minutes. All cases of a table run in turns; times are medians, and ratios are medians of the ratios
of the rounds. With `--device cpu`, it measures smaller weights on a CPU and writes nothing.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a smoke run: the figures mean little")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for the measurements")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device. --device cpu measures on a CPU and writes nothing.")
    torch.set_num_threads(1)
    where = environment()
    if arguments.device == "cuda":
        name = torch.cuda.get_device_name()
        where = f"{name}, CUDA {torch.version.cuda}, {where}"
    print(where, end="\n\n")
    parts = [INTRODUCTION, f"{where}\n"]
    setting = Setting(arguments.device, Budget(arguments.seconds, COUNT), arguments.quick)
    for table in tables(setting):
        parts.append(table.markdown())
        print(parts[-1], flush=True)
    if arguments.device == "cuda" and not arguments.quick:
        PAGE.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
