"""`with cached(...):` in the methods of a module that is scripted.

TorchScript knows no context managers but its own, and the twins of chains are such. So each
method that opens a scope is given a text in which the covered chains stand in the place of
`cached(...)`. The arguments are evaluated once, when the model is scripted.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import ChainMap
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any

from torch.nn import Module

from paramdesc.caching import cached, flatten, get_covered
from paramdesc.errors import ScriptedScopeError
from paramdesc.jit.paths import find_expressions

__all__ = ["methods_with_scopes"]


def methods_with_scopes(module: Module) -> tuple[tuple[str, str], ...]:
    """The methods of `module` that open scopes: their names, and their texts for TorchScript."""
    texts = ((name, rewritten(module, method)) for name, method in methods_of(type(module)))
    return tuple((name, text) for name, text in texts if text)


def methods_of(cls: type) -> Iterator[tuple[str, FunctionType]]:
    """The functions that `cls` and its bases define, those of torch left out."""
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        if isinstance(member, FunctionType) and not member.__module__.startswith("torch."):
            yield name, member


def rewritten(module: Module, method: FunctionType) -> str:
    """The text of `method` with the chains in the place of `cached(...)`; empty without one."""
    try:
        text = textwrap.dedent(inspect.getsource(method))
        tree = ast.parse(text).body[0]
    except (OSError, SyntaxError, IndexError):  # no text, and so nothing for TorchScript
        return ""
    if not isinstance(tree, ast.FunctionDef):
        return ""
    scopes = Scopes(module, inspect.unwrap(method), tree)
    if any(scopes.is_scope(decorator) for decorator in tree.decorator_list):
        return scopes.undecorated()
    edits = sorted(scopes.edits(text), reverse=True)
    for start, end, header in edits:
        text = text[:start] + header + text[end:]
    return text if edits else ""


class Scopes:
    """The scopes that the definition of one method opens."""

    def __init__(self, module: Module, method: Any, tree: ast.FunctionDef) -> None:
        self.module = module
        self.method = method
        self.tree = tree
        variables = inspect.getclosurevars(method)
        self.names: Mapping[str, Any] = ChainMap(
            dict(variables.nonlocals), method.__globals__, dict(variables.builtins)
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
        known = {self.tree.args.args[0].arg: self.module, **self.names}
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
        for line in text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))

        def place(line: int, column: int) -> int:
            before = text[starts[line - 1] :].encode()[:column]
            return starts[line - 1] + len(before.decode())

        for node in ast.walk(self.tree):
            if isinstance(node, ast.With) and any(
                self.is_scope(item.context_expr) for item in node.items
            ):
                last = node.items[-1].optional_vars or node.items[-1].context_expr
                end = place(last.end_lineno or 0, last.end_col_offset or 0)
                yield place(node.lineno, node.col_offset), text.index(":", end), self.header(node)

    def header(self, node: ast.With) -> str:
        """The line that opens the block in TorchScript, up to its colon."""
        items: list[str] = []
        for item in node.items:
            if self.is_scope(item.context_expr):
                items += self.expressions(item.context_expr)
            else:
                items.append(ast.unparse(item))
        return f"with {', '.join(items)}" if items else "if True"

    def undecorated(self) -> str:
        """The definition without its decorator `@cached(...)`, its body in a block."""
        items: list[ast.expr] = [
            ast.parse(expression, mode="eval").body
            for decorator in self.tree.decorator_list
            if self.is_scope(decorator)
            for expression in self.expressions(decorator)
        ]
        self.tree.decorator_list = []
        if items:
            block = ast.With([ast.withitem(item) for item in items], self.tree.body)
            self.tree.body = [block]
        return ast.unparse(ast.fix_missing_locations(self.tree))
