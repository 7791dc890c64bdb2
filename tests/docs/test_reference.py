"""Every public name is in the reference or on the page of a parametrization."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

import paramdesc
from paramdesc import errors, testing

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
SYNONYMS = {"cache"}  # another name of `cached`


@pytest.mark.parametrize("module", [paramdesc, testing])
def test_public_names_are_documented(module: ModuleType) -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))
    documented = {name.rpartition(".")[2] for name in re.findall(r"\.\. auto\w+:: ([\w.]+)", pages)}
    names = {n for n in module.__all__ if not isinstance(getattr(module, n), ModuleType)}
    assert names - documented == names & SYNONYMS


def test_all_errors_are_documented() -> None:
    page = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    assert f".. automodule:: {errors.__name__}\n   :members:\n" in page


def test_all_pages_are_listed() -> None:
    index = (REFERENCE / "index.md").read_text(encoding="utf-8")
    for page in REFERENCE.glob("*.md"):
        if page.stem != "index":
            assert f"({page.name})" in index
            assert f"\n{page.stem}\n" in index
