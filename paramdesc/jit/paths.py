"""Expressions for submodules and tensors of a module that TorchScript can read."""

from __future__ import annotations

from collections.abc import Iterator
from keyword import iskeyword

from torch import nn
from torch.nn import Module

__all__ = ["child_expression", "find_expressions", "is_attribute"]


def is_attribute(name: str) -> bool:
    """Whether `module.<name>` can be written."""
    return name.isidentifier() and not iskeyword(name)


def child_expression(parent: Module, name: str) -> str:
    """What follows an expression for `parent` to give its child; empty if nothing does."""
    if isinstance(parent, nn.ModuleDict):
        return f"[{name!r}]"
    if name.isdigit() and isinstance(parent, (nn.ModuleList, nn.Sequential)):
        return f"[{list(parent._modules).index(name)}]"
    return f".{name}" if is_attribute(name) else ""


def tensor_expression(module: Module, name: str) -> str:
    """What follows an expression for `module` to give its tensor; empty if nothing does."""
    if isinstance(module, nn.ParameterList):
        return f"[{name}]"
    return f".{name}" if is_attribute(name) else ""


def find_expressions(root: Module) -> Iterator[tuple[Module, str]]:
    """The modules at and below `root`, each with an expression in which `self` is `root`.

    The expression is empty for those that none leads to.
    """
    stack, seen = [(root, "self")], {root}
    while stack:
        module, expression = stack.pop()
        yield module, expression
        for name, child in reversed(module._modules.items()):
            if child is not None and child not in seen:
                seen.add(child)
                step = child_expression(module, name)
                stack.append((child, expression + step if expression and step else ""))
