"""What becomes of docstrings on the site: examples to copy, papers as links."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from catalog import FACTS, as_code, linked

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["code_blocks", "setup"]

NAME_AND_LETTERS = re.compile(r"(`[^`\s][^`]*`)(?=\w)")


def process(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Rewrite one docstring, which is reStructuredText by now."""
    # "`Name`s" is a name and an s: reStructuredText would look for the end of the name
    lines[:] = [NAME_AND_LETTERS.sub(r"\1\\ ", line) for line in lines]
    lines[:] = linked("\n".join(lines)).split("\n")
    if app.builder.name != "doctest":  # which needs the prompts
        shown_above = what == "class" and name.rpartition(".")[2] in FACTS
        lines[:] = code_blocks(lines, drop=shown_above)


def code_blocks(lines: list[str], *, drop: bool = False) -> list[str]:
    """Sessions with prompts as code without prompts, or left out."""
    result: list[str] = []
    session: list[str] = []
    for line in [*lines, ""]:
        if session and line.strip():
            session.append(line)
        elif line.lstrip().startswith(">>> "):
            session = [line]
        else:
            if session and not drop:
                result += block(session)
            session = []
            result.append(line)
    return result[:-1]


def block(session: list[str]) -> list[str]:
    indent = re.match(r"\s*", session[0])
    assert indent is not None
    code = as_code("\n".join(session)).split("\n")
    lines = ["", ".. code-block:: python", "", *(f"   {line}".rstrip() for line in code), ""]
    return [f"{indent[0]}{line}".rstrip() for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this as it loads the extension."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process, priority=600)  # after napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
