"""What `python -m paramdesc convert` takes: memory of its own, and time."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from tests.benchmarks.table import Goal, Table, main

__all__ = ["tables"]

# RssAnon is memory of the process; pages of mapped files can be dropped at any time, and count
# in VmHWM only. The program starts counting when torch is imported.
PROGRAM = """
import json, sys, threading, time
import torch
from paramdesc.commands import convert

def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

start = peak = status("RssAnon")
resident = status("VmRSS")
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, status("RssAnon"))

watcher = threading.Thread(target=watch)
watcher.start()
began = time.perf_counter()
assert convert.main([*sys.argv[1:], "--force", "--quiet"]) == 0
seconds = time.perf_counter() - began
done.set()
watcher.join()
print(json.dumps([peak - start, status("VmHWM") - resident, seconds]))
"""


def save_checkpoint(path: Path, n_layers: int, width: int) -> float:
    """Write weight norms in torch's layout; the size in MB."""
    layers = {}
    for i in range(n_layers):
        chain = f"{i}.parametrizations.weight"
        layers[f"{chain}.original0"] = torch.ones(width, 1)
        layers[f"{chain}.original1"] = torch.randn(width, width)
    torch.save(layers, path)
    return path.stat().st_size / 2**20


def measure(path: Path, out: Path, layout: str) -> tuple[float, float, float]:
    """Memory of its own and memory with mapped files at the peak, in MB, and seconds."""
    command = [sys.executable, "-c", PROGRAM, str(path), str(out), "--to", layout]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    own, resident, seconds = json.loads(output)
    out.unlink()
    return max(own, 0.1), max(resident, 0.1), seconds


def tables(quick: bool) -> Iterator[Table]:
    if not sys.platform.startswith("linux"):
        return
    endings = [".pt", ".safetensors"] if find_spec("safetensors") else [".pt"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "in.pt")
        megabytes = save_checkpoint(path, *((4, 64) if quick else (32, 4096)))
        rows: dict[str, tuple[float | None, ...]] = {
            f"to {layout}, {ending}": measure(path, Path(folder, f"out{ending}"), layout)
            for ending in endings
            for layout in ("plain", "weight_g")
        }
    yield Table(
        "Converting a checkpoint",
        f"`python -m paramdesc convert` of a file of {megabytes:.0f} MB with weight norms, beyond "
        "the process that has imported torch. Pages of mapped files are the system's to drop.",
        ("MB of its own", "MB with mapped files", "seconds"),
        rows,
        [Goal("memory of its own, in MB,", 500, max(row[0] or 0.0 for row in rows.values()))],
    )


if __name__ == "__main__":
    main(tables, __doc__)
