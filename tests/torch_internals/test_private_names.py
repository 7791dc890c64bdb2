"""What the package uses of torch's private names, all of which each supported version has."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import paramdesc

PACKAGE = Path(paramdesc.__file__).parent


def is_private(path: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in path.split("."))


def dotted(node: ast.expr) -> str:
    """`"torch._C._has_cuda"` for this expression; empty if it is not an attribute of a name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def names_in(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and dotted(node).startswith("torch."):
            yield dotted(node)


def private_names() -> list[str]:
    sources = [file.read_text("utf-8") for file in PACKAGE.rglob("*.py")]
    return sorted({name for source in sources for name in names_in(source) if is_private(name)})


def exists(path: str) -> bool:
    """Whether a name is in torch, after the imports that its modules need."""
    parts = path.split(".")
    found: object = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 2):
        if not hasattr(found, part):
            try:
                importlib.import_module(".".join(parts[:i]))
            except ImportError:
                return False
        found = getattr(found, part)
    return True


def test_each_private_name_of_torch_exists_in_this_version() -> None:
    names = private_names()
    assert "torch._C._has_cuda" in names
    assert not [name for name in names if not exists(name)]


def test_a_name_that_torch_lacks_would_be_found() -> None:
    source = "from torch._C import _nothing\nx = torch._dynamo.nothing.more"
    found = list(names_in(source))
    assert "torch._C._nothing" in found
    assert not any(exists(name) for name in ("torch._C._nothing", "torch._dynamo.nothing.more"))
