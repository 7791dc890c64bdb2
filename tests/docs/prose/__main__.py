"""Checks the spelling and the grammar of every page, and prints what it finds.

Harper (https://writewithharper.com) reads the pages: `pip install paramdesc[docs]` installs it, and
it needs no network. `words.txt` has the words that are not in its dictionary.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[3]
WORDS = Path(__file__).with_name("words.txt")

OFF = {
    "CondenseAllThe": "'all of the following' is right",
    "DiscourseMarkers": "'Otherwise' needs no comma",
    "ExpandMemoryShorthands": "tables have MiB",
    "ExpandTimeShorthands": "tables have ms",
    "LongSentences": "it takes lists with semicolons, and links, for one sentence",
    "MassNouns": "mathematics counts covariances, and counts squarings",
    "MissingPreposition": "it misreads tables, and sentences with 'registered by'",
    "MissingTo": "it takes the noun 'mean' for a verb",
    "OrthographicConsistency": "names of functions, such as lora, are in lower case",
    "OxfordComma": "the last two items of a list are joined by 'and' alone",
    "SentenceCapitalization": "cells of tables and items of lists may start in lower case",
    "SingleBe": "it misreads 'torch's is'",
    "SplitWords": "it takes words of torch apart, such as autocast",
    "TheirToTheyre": "it misreads 'with their backward pass'",
    "ToTwoToo": "it misreads 'last to first'",
    "UseEllipsisCharacter": "three dots are Python's",
    "UseTitleCase": "headings are in sentence case",
}
"""The rules that are not applied, and why."""

ROLE = re.compile(r"\{[a-z:]+\}(?=`)")
CLASS_NAME = re.compile(r"\w*[a-z\d][A-Z]\w*")


def pages() -> list[Path]:
    docs = ROOT / "docs"
    built = (docs / "_build", docs / "_generated", docs / "parametrizations")
    found = [p for p in docs.rglob("*.md") if not set(built) & set(p.parents)]
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(found)]


def findings() -> list[str]:
    """What Harper says of the pages, as lines with the place of each."""
    words = known_words()
    with TemporaryDirectory() as folder:
        names: dict[str, str] = {}
        for page in pages():
            name = str(page.relative_to(ROOT))
            copy = Path(folder, name.replace("/", "+"))  # it reports names without their folders
            names[copy.name] = name
            text = page.read_text(encoding="utf-8")
            copy.write_text(ROLE.sub("", text), encoding="utf-8")
        copies = [str(Path(folder, name)) for name in names]
        command = ["harper", "lint", "--format", "json", *copies]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        reports: list[dict[str, Any]] = json.loads(run.stdout)
    return [
        f"{names[report['file']]}:{lint['line']}: {lint['rule']}: {lint['matched_text']!r}: "
        f"{lint['message']} {'; '.join(lint['suggestions'][:2])}"
        for report in reports
        for lint in report["lints"]
        if lint["rule"] not in OFF and not is_known(lint["matched_text"], words)
    ]


def is_known(text: str, words: set[str]) -> bool:
    """Whether it is a word of the list, also with a capital, or the name of a class."""
    return bool({text, text.lower()} & words or CLASS_NAME.fullmatch(text))


def known_words() -> set[str]:
    lines = WORDS.read_text(encoding="utf-8").splitlines()
    return {word for line in lines for word in line.partition("#")[0].split()}


if __name__ == "__main__":
    found = findings()
    print("\n".join(found))
    sys.exit(bool(found))
