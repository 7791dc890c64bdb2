"""Which file has the source of a public name, for the links to the source."""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["setup", "source_of"]


def source_of(app: Sphinx, module: str, attribute: str) -> str | None:
    """The module that defines what a public one imports: what `__module__` says is not that."""
    name = attribute.partition(".")[0]
    while name in (found := imported(module)):
        module = found[name]
    return module


@cache
def imported(module: str) -> dict[str, str]:
    """The names that a module imports from others."""
    path = importlib.import_module(module).__file__
    if path is None or not module.startswith("paramdesc"):
        return {}
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    return {
        alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this as it loads the extension."""
    app.setup_extension("sphinx.ext.viewcode")
    app.connect("viewcode-follow-imported", source_of)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
