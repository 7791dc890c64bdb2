"""Runs all checks of a built site, and ends with an error if one fails.

Pages that are named after the site are the only ones that are looked at.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .browser import look_at
from .chromium import executable
from .links import dead_links


def main() -> int:
    site = Path(sys.argv[1]).resolve()
    problems = list(dead_links(site))
    chromium = executable()
    if chromium is None:
        print("Chromium is not installed: the pages are not looked at")
    else:
        problems += look_at(site, chromium, site.parent / "screenshots", sys.argv[2:])
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(problems)} problems in {site}")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
