"""The extensions of the site, and the checks of what it is built to."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest

import paramdesc
from paramdesc import parametrizations


def test_dead_links_are_found(site: Any, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="here"></p><a href="#here">1</a><a href="#there">2</a><a href="b/c.html#x">3</a>'
        '<a href="b/none.html">4</a><a href="https://example.org/none">5</a><img src="no.png">',
        encoding="utf-8",
    )
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.html").write_text(
        '<h1 id="x"></h1><a href="../a.html#here">1</a><a href="../a.html#nowhere">2</a>',
        encoding="utf-8",
    )
    assert list(site("checks.links").dead_links(tmp_path)) == [
        "a.html: nothing is at #there",
        "a.html: nothing is at b/none.html",
        "a.html: nothing is at no.png",
        "b/c.html: nothing is at ../a.html#nowhere",
    ]


def test_inventories_name_the_addresses(site: Any, tmp_path: Path) -> None:
    mapping = site("extensions.inventories").inventories(tmp_path)
    address, path = mapping["torch"]
    header, _, data = Path(path).read_bytes().partition(b"zlib.\n")
    assert header.startswith(b"# Sphinx inventory version 2\n# Project: torch\n")
    lines = zlib.decompress(data).decode().splitlines()
    name = "torch.nn.Linear"
    assert f"{name} py:class 1 generated/{name}.html#{name} -" in lines
    assert address == "https://docs.pytorch.org/docs/stable/"


def test_the_source_of_a_public_name_is_the_file_that_defines_it(site: Any) -> None:
    source_of = site("extensions.sources").source_of
    for module in (paramdesc, parametrizations):
        for name in set(module.__all__) - {"cache"}:  # another name of `cached`
            if isinstance(getattr(module, name), type):
                found = source_of(None, module.__name__, name)
                path = Path(paramdesc.__file__).parents[1] / f"{found.replace('.', '/')}.py"
                assert f"class {name}" in path.read_text(encoding="utf-8"), name


def test_names_of_the_package_are_linked_and_words_are_not(site: Any) -> None:
    pytest.importorskip("sphinx")
    names = site("extensions.links").PUBLIC
    assert names["Orthogonal"] == "paramdesc.parametrizations.Orthogonal"
    assert names["register_parametrization"] == "paramdesc.register_parametrization"
    assert names["nn.Linear"] == names["torch.nn.Linear"] == "torch.nn.Linear"
    assert not {"cached", "jit", "testing", "tie"} & set(names)


def test_examples_of_docstrings_lose_their_prompts(site: Any) -> None:
    code_blocks = site("extensions.docstrings").code_blocks
    lines = ["Text.", "", ">>> 1 + 1", "2", ">>> if True:", "...     3", "3", "", "More."]
    assert code_blocks(lines) == [
        *("Text.", "", "", ".. code-block:: python", ""),
        *("   1 + 1", "   # 2", "   if True:", "       3", "   # 3"),
        *("", "", "More."),
    ]
    assert code_blocks(lines, drop=True) == ["Text.", "", "", "More."]
