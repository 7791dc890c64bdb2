"""What a scope covers: the chains at and below its targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from torch import Tensor
from torch.nn import Module

from paramdesc.caching.programs import RecursiveScriptModule, is_scripted_list
from paramdesc.chain.chain import Chain
from paramdesc.errors import CacheTargetError

__all__ = ["Target", "Visit", "covered_by", "find_chains", "flatten", "get_covered"]

Target: TypeAlias = Module | Iterable["Target"]
"""What `cached` covers: modules, `ParametrizationList`s, and sets or iterables of them."""

Visit: TypeAlias = tuple[Module, dict[str, Any]]
"""A module that a walk has come to, and the children that it had then."""


def flatten(targets: Iterable[Any]) -> Iterator[Module]:
    """The modules and lists in `targets`, with nested iterables flattened."""
    for target in targets:
        if isinstance(target, Module):
            yield target
        elif isinstance(target, Iterable) and not isinstance(target, (str, bytes, Tensor)):
            yield from flatten(target)
        else:
            raise CacheTargetError.scoped(target)


def get_covered(modules: Iterable[Module]) -> dict[Any, str]:
    """The chains at and below `modules`, each with its path in the first module that has it."""
    covered: dict[Any, str] = {}
    for module in modules:
        for chain, name in covered_by(module).items():
            covered.setdefault(chain, name)
    return covered


def covered_by(module: Module, visits: list[Visit] | None = None) -> dict[Any, str]:
    """The chains at and below `module`, each with its path. Adds what was visited to `visits`."""
    covered: dict[Any, str] = {}
    if isinstance(module, Chain) or is_scripted_list(module):
        covered[module] = ""
    for name, chain in find_chains(module, set(), visits):
        covered.setdefault(chain, name)
    return covered


def find_chains(
    root: Module, seen: set[Any], visits: list[Visit] | None = None
) -> Iterator[tuple[str, Any]]:
    """The chains below `root` with their names, depth first, each module visited once."""
    stack = [("", root)]
    while stack:
        path, module = stack.pop()
        # a loaded program has several Python objects for one module
        identity = module._c if isinstance(module, RecursiveScriptModule) else module
        if identity in seen:
            continue
        seen.add(identity)
        prefix = f"{path}." if path else ""
        children: dict[str, Any] = dict(module._modules.items())
        if visits is not None:
            visits.append((module, children))
        chains = children.get("parametrizations")
        if isinstance(chains, Module):
            for name, chain in chains._modules.items():
                if isinstance(chain, Chain) or is_scripted_list(chain):
                    yield f"{prefix}{name}", chain
        stack += [
            (f"{prefix}{name}", child)
            for name, child in reversed(children.items())
            if child is not None
        ]
