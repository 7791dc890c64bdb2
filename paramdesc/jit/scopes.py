"""`with cached(...):` in the methods of a module that is scripted.

TorchScript supports only scripted classes as context managers, and the twins of chains are such
classes. So each method that opens a scope gets a source in which the covered chains replace
`cached(...)`. The arguments are evaluated once, when the model is scripted.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import textwrap
from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import FunctionType
from typing import Any

from torch.nn import Module

from paramdesc.caching.cached import cached
from paramdesc.caching.targets import flatten, get_covered
from paramdesc.errors import ScriptedScopeError
from paramdesc.jit.paths import find_expressions
from paramdesc.torch_internals.script import is_ignored_fn

__all__ = ["methods_with_scopes"]


def methods_with_scopes(module: Module, refused: list[Exception]) -> tuple[tuple[str, str], ...]:
    """The methods of `module` that open scopes: their names, and their texts for TorchScript.

    It is not known yet which methods are compiled. Errors in a method go to `refused`.
    """
    texts: list[tuple[str, str]] = []
    for name, method in methods_of(type(module)):
        try:
            text = rewritten(module, method)
        except Exception as error:  # noqa: PERF203
            refused.append(error)
        else:
            texts += [(name, text)] if text else []
    return tuple(texts)


def methods_of(cls: type) -> Iterator[tuple[str, FunctionType]]:
    """The functions that `cls` and its bases define, those of torch left out."""
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        if isinstance(member, FunctionType) and not (member.__module__ or "").startswith("torch."):
            yield name, member


def rewritten(module: Module, method: FunctionType) -> str:
    """The source of `method` with the chains instead of `cached(...)`; empty without one."""
    function = inspect.unwrap(method)
    if not isinstance(function, FunctionType) or is_ignored_fn(method):
        return ""
    try:
        text = textwrap.dedent(inspect.getsource(method))
        tree = ast.parse(text).body[0]
    except (OSError, SyntaxError, IndexError):  # no text, and so nothing for TorchScript
        return ""
    if not isinstance(tree, ast.FunctionDef):
        return ""
    scopes = Scopes(module, function, tree)
    if any(scopes.is_scope(decorator) for decorator in tree.decorator_list):
        return scopes.undecorated(type_comment_of(text))
    edits = sorted(scopes.edits(text), reverse=True)
    for start, end, header in edits:
        text = text[:start] + header + text[end:]
    return text if edits else ""


def nonlocals_of(function: FunctionType) -> dict[str, Any]:
    """The names of `function` from the functions around it; those without a value left out."""
    cells: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # it is empty
            cells[name] = cell.cell_contents
    return cells


def type_comment_of(text: str) -> str:
    """The signature of the function defined in `text`, where a comment gives it."""
    with suppress(SyntaxError):
        tree: Any = ast.parse(text, type_comments=True).body[0]
        return tree.type_comment or ""
    return ""


def colon_in(text: str) -> int:
    """Where the first colon is that stands in no comment."""
    return re.sub(r"#[^\n]*", lambda comment: " " * len(comment[0]), text).index(":")


class Scopes:
    """The scopes that the definition of one method opens."""

    def __init__(self, module: Module, method: Any, tree: ast.FunctionDef) -> None:
        self.module = module
        self.method = method
        self.tree = tree
        self.names: Mapping[str, Any] = ChainMap(
            nonlocals_of(method), method.__globals__, vars(builtins)
        )

    def is_scope(self, node: ast.expr) -> bool:
        """Whether `node` is a call of `cached`, under whatever name."""
        return isinstance(node, ast.Call) and self.meaning(node.func) is cached

    def meaning(self, node: ast.expr) -> Any:
        """What a name with dots stands for."""
        if isinstance(node, ast.Attribute):
            return getattr(self.meaning(node.value), node.attr, None)
        return self.names.get(node.id) if isinstance(node, ast.Name) else None

    def expressions(self, call: Any) -> list[str]:
        """Expressions for the chains that this call of `cached` covers."""
        local = set(self.method.__code__.co_varnames)
        known = {name: value for name, value in self.names.items() if name not in local}
        known[self.tree.args.args[0].arg] = self.module
        arguments = ast.Expression(ast.List(call.args, ast.Load()))
        code = compile(ast.fix_missing_locations(arguments), "<targets>", "eval")
        try:
            targets = eval(code, known) or [self.module]
        except NameError as error:
            raise ScriptedScopeError.unknown(self.module, ast.unparse(call), error) from error
        places = dict(find_expressions(self.module))
        covered = get_covered(flatten(targets)) if call.args else get_covered([self.module])
        outside = [chain.tensor_name for chain in covered if not places.get(chain)]
        if outside:
            raise ScriptedScopeError.outside(self.module, ast.unparse(call), outside)
        return [place for chain, place in places.items() if chain in covered]

    def edits(self, text: str) -> Iterator[tuple[int, int, str]]:
        """For each `with cached(...):`, where its header starts and ends, and the new one."""
        starts = [0]
        for line in text.split("\n"):  # as Python counts lines; splitlines() knows more of them
            starts.append(starts[-1] + len(line) + 1)

        def place(line: int, column: int) -> int:
            before = text[starts[line - 1] :].encode()[:column]
            return starts[line - 1] + len(before.decode())

        for node in ast.walk(self.tree):
            if isinstance(node, ast.With) and any(
                self.is_scope(item.context_expr) for item in node.items
            ):
                last = node.items[-1].optional_vars or node.items[-1].context_expr
                end = place(last.end_lineno or 0, last.end_col_offset or 0)
                body = place(node.body[0].lineno, node.body[0].col_offset)
                colon = end + colon_in(text[end:body])
                yield place(node.lineno, node.col_offset), colon, self.header(node)

    def header(self, node: ast.With) -> str:
        """The line that opens the block in TorchScript, up to its colon."""
        items: list[str] = []
        for item in node.items:
            if self.is_scope(item.context_expr):
                items += self.expressions(item.context_expr)
            else:
                items.append(ast.unparse(item))
        return f"with {', '.join(items)}" if items else "if True"

    def undecorated(self, comment: str) -> str:
        """The definition without its decorator `@cached(...)`, its body in a block."""
        items: list[ast.expr] = [
            ast.parse(expression, mode="eval").body
            for decorator in self.tree.decorator_list
            if self.is_scope(decorator)
            for expression in self.expressions(decorator)
        ]
        self.tree.decorator_list = []
        self.tree.body = [Replacement(self).visit(statement) for statement in self.tree.body]
        if items:
            block = ast.With([ast.withitem(item) for item in items], self.tree.body)
            self.tree.body = [block]
        head, body = ast.unparse(ast.fix_missing_locations(self.tree)).split("\n", 1)
        return f"{head}\n    # type: {comment}\n{body}" if comment else f"{head}\n{body}"


class Replacement(ast.NodeTransformer):
    """Replaces `cached(...)` by the chains, in a definition."""

    def __init__(self, scopes: Scopes) -> None:
        self.scopes = scopes

    def visit_With(self, node: ast.With) -> ast.stmt:
        self.generic_visit(node)
        if not any(self.scopes.is_scope(item.context_expr) for item in node.items):
            return node
        header = ast.parse(f"{self.scopes.header(node)}:\n    pass").body[0]
        header.body = node.body  # type: ignore[attr-defined]
        return header
