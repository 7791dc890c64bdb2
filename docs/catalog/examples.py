"""The examples of docstrings as code to copy: no prompts, outputs as comments, imports on top."""

from __future__ import annotations

import ast
import builtins
import doctest
import textwrap

import paramdesc
from paramdesc import parametrizations

__all__ = ["as_code", "example_of", "imports_for"]


def example_of(documented: object) -> str:
    """The last example of a docstring, complete."""
    blocks = doctest.DocTestParser().get_examples(documented.__doc__ or "")
    if not blocks:
        return ""
    return as_code("\n".join(prompted(block) for block in blocks), with_imports=True)


def prompted(example: doctest.Example) -> str:
    first, *others = example.source.rstrip("\n").split("\n")
    lines = [f">>> {first}", *(f"... {line}" for line in others)]
    return "\n".join([*lines, example.want.rstrip("\n")]).rstrip("\n")


def as_code(session: str, *, with_imports: bool = False) -> str:
    """A session with prompts as code without."""
    lines: list[str] = []
    for example in doctest.DocTestParser().get_examples(textwrap.dedent(session)):
        lines.append(example.source.rstrip("\n"))
        lines += [f"# {line}".rstrip() for line in example.want.rstrip("\n").split("\n") if line]
    code = "\n".join(lines)
    imports = imports_for(code) if with_imports else ""
    return f"{imports}\n\n{code}" if imports else code


def imports_for(code: str) -> str:
    """What has to be imported before the code runs."""
    names = {node.id: node.ctx for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    missing = sorted(names.keys() - made_in(code) - set(dir(builtins)), key=str.lower)
    lines = ["import torch"] if "torch" in missing else []
    for module in (paramdesc, parametrizations):
        public = [name for name in missing if name in module.__all__]
        if public:
            lines.append(f"from {module.__name__} import {', '.join(public)}")
    return "\n".join(lines)


def made_in(code: str) -> set[str]:
    """The names that the code itself defines or imports."""
    made: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            made.add(node.id)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            made |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return made
