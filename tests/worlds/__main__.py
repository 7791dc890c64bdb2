"""Tries every world with both engines and writes docs/compatibility.md."""

from __future__ import annotations

import argparse
import time

from tests.worlds.page import PAGE, WORLDS, outcomes, write

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these, printed and not written")
    chosen = parser.parse_args().names
    rows = {}
    for world in WORLDS:
        if not chosen or world.name in chosen or world.name.partition(".")[0] in chosen:
            start = time.perf_counter()
            rows[world] = outcomes(world)
            took = time.perf_counter() - start
            print(f"{took:5.1f} s  {world.name}", *rows[world], sep="\n    ", flush=True)
    if not chosen:
        PAGE.write_text(write(rows), encoding="utf-8")
