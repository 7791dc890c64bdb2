"""Checks the spelling and the grammar of the pages and docstrings, and prints what it finds.

Harper (https://writewithharper.com) reads them: `pip install paramdesc[docs]` installs it, and it
needs no network. `words.txt` has the words that are not in its dictionary.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.docs.prose.texts import texts

WORDS = Path(__file__).with_name("words.txt")

OFF = {
    "CondenseAllThe": "'all of the following' is right",
    "CompoundNouns": "it takes 'may be' for a noun",
    "DiscourseMarkers": "'Otherwise' needs no comma",
    "EllipsisLength": "a sentence may end in code with three dots",
    "Everyone": "'every one of them' is right",
    "ExpandArgument": "'Args:' is the heading of a list",
    "ExpandMemoryShorthands": "tables have MiB",
    "ExpandTimeShorthands": "tables have ms",
    "LongSentences": "it takes lists with semicolons, and links, for one sentence",
    "MassNouns": "mathematics counts covariances, and counts squarings",
    "MissingPreposition": "it misreads tables, and sentences with 'registered by'",
    "MissingTo": "it takes the noun 'mean' for a verb",
    "OneOfTheSingular": "it misreads 'one of the three that'",
    "OrthographicConsistency": "names of functions, such as lora, are in lower case",
    "OxfordComma": "the last two items of a list are joined by 'and' alone",
    "Overall": "'a maximum over all rows' is right",
    "PronounInflectionBe": "it misreads 'tensors that nothing else uses are'",
    "SentenceCapitalization": "cells of tables and items of lists may start in lower case",
    "SingleBe": "it misreads 'torch's is'",
    "Spaces": "listings are set with tabs",
    "SplitWords": "it takes words of torch apart, such as autocast",
    "TheirToTheyre": "it misreads 'with their backward pass'",
    "ToTwoToo": "it misreads 'last to first'",
    "UseEllipsisCharacter": "three dots are Python's",
    "UseTitleCase": "headings are in sentence case",
    "WrongNegative": "'unscaled' is torch's word",
}
"""The rules that are not applied, and why."""

NAME = re.compile(r"\w*[a-z\d][A-Z]\w*(?:'s)?|[A-ZÅ]\.|\w*[ᴴᵀᵏ]\w*")
"""Names of classes, initials of people, and formulas."""


def findings() -> list[str]:
    """What Harper says, as lines with the place of each."""
    words = known_words()
    with TemporaryDirectory() as folder:
        names: dict[str, str] = {}
        for name, text in texts():
            copy = Path(folder, name.replace("/", "+") + ".md")  # it reports names without folders
            copy.write_text(text, encoding="utf-8")
            names[copy.name] = name
        command = ["harper", "lint", "--format", "json", *(str(Path(folder, n)) for n in names)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        reports: list[dict[str, Any]] = json.loads(run.stdout)
    assert len(reports) == len(names)
    return [
        f"{names[report['file']]}:{lint['line']}: {lint['rule']}: {lint['matched_text']!r}: "
        f"{lint['message']} {'; '.join(lint['suggestions'][:2])}"
        for report in reports
        for lint in report["lints"]
        if lint["rule"] not in OFF and not is_known(lint["matched_text"], words)
    ]


def is_known(text: str, words: set[str]) -> bool:
    """Whether it is a word of the list, also with a capital, or a name."""
    return bool({text, text.lower()} & words or NAME.fullmatch(text))


def known_words() -> set[str]:
    lines = WORDS.read_text(encoding="utf-8").splitlines()
    return {word for line in lines for word in line.partition("#")[0].split()}


if __name__ == "__main__":
    found = findings()
    print("\n".join(found))
    sys.exit(bool(found))
