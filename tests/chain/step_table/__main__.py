"""Measures the table of training steps and writes it into docs/guide/steps.md."""

from __future__ import annotations

import argparse
import json

from tests.chain.step_table.page import ROWS, row, write

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("titles", nargs="*", help="only these, printed and not written")
    chosen = parser.parse_args().titles
    if chosen:
        for title in chosen:
            print(json.dumps(ROWS[title].row()))
    else:
        rows = {}
        for title in ROWS:
            rows[title] = row(title)
            print(title, *rows[title], sep="  ", flush=True)
        write(rows)
