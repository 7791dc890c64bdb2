"""What is read: the pages, and the docstrings of the package, without what is not English.

A build of the site writes docs/parametrizations; these pages are read if they are there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ROOT", "texts"]

ROOT = Path(__file__).parents[3]
BUILT = {"_build", "_generated"}
ROLE = re.compile(r"\{[a-z:]+\}(?=`)|:[a-z:]+:(?=`)")
WITH_DOCSTRING = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def texts() -> Iterator[tuple[str, str]]:
    """Names of files, and what to read of each: the lines keep their numbers."""
    pages = [p for p in (ROOT / "docs").rglob("*.md") if not BUILT & set(p.parts)]
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(pages)]:
        yield str(page.relative_to(ROOT)), ROLE.sub("", page.read_text(encoding="utf-8"))
    for source in sorted((ROOT / "paramdesc").rglob("*.py")):
        if text := docstrings(source.read_text(encoding="utf-8")):
            yield str(source.relative_to(ROOT)), text


def docstrings(source: str) -> str:
    """The docstrings in their lines, without their examples, and nothing in between."""
    lines = [""] * (source.count("\n") + 1)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, WITH_DOCSTRING) and ast.get_docstring(node, clean=False):
            is_example = False
            for number, line in enumerate(source_lines(node), expression(node).lineno - 1):
                is_example = line.startswith(">>>") or (is_example and bool(line))
                lines[number] = "" if is_example else ROLE.sub("", line)
    return "\n".join(lines).strip() and "\n".join(lines)


def expression(node: WITH_DOCSTRING) -> ast.Constant:
    statement = node.body[0]
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Constant)
    return statement.value


def source_lines(node: WITH_DOCSTRING) -> list[str]:
    return [line.strip() for line in str(expression(node).value).split("\n")]
