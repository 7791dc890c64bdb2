"""Tries every change and writes the table in docs/guide/cache.md; with --check, compares it."""

from __future__ import annotations

import argparse
import sys

from tests.caching.noticed.table import PAGE, block, replaced_in, rows

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if it differs")
    is_checked = parser.parse_args().check
    text = PAGE.read_text(encoding="utf-8")
    expected = replaced_in(text, block(rows()))
    if is_checked and text != expected:
        sys.exit(f"{PAGE.name} differs. Write it with `python -m tests.caching.noticed`.")
    if not is_checked:
        PAGE.write_text(expected, encoding="utf-8")
