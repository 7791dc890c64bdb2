"""Evaluating a chain, and keeping the value longer than the block in which it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from paramdesc.caching.contents import Contents
from paramdesc.caching.dependencies import Dependencies
from paramdesc.caching.entry import Entry
from paramdesc.caching.last_read import remembered
from paramdesc.caching.scopes import Scope
from paramdesc.chain.clock import Clock
from paramdesc.chain.shards import are_sharded
from paramdesc.torch_internals.captures import is_capturing
from paramdesc.torch_internals.mode import (
    Mode,
    current_mode,
    has_own_functions,
    is_grad_enabled,
    is_plain,
)
from paramdesc.torch_internals.tensors import address

__all__ = ["contents_of", "evaluate_to_last", "keep_to_last", "may_last"]


def may_last(chain: Any) -> bool:
    """Whether a value evaluated now may outlive its block: in evaluation mode, without gradients.

    In training mode a map may be random, or have a state that changes. Shared memory may be written
    to by another process. In the capture of a CUDA graph, a value lives as long as the capture.
    """
    if chain.training:
        return False
    tensors = (*chain.parameters(), *chain.buffers())
    return (
        is_plain()
        and not (is_grad_enabled() and any(x.requires_grad for x in tensors))
        and not any(x.is_shared() for x in tensors if x.device.type == "cpu" and address(x))
        and not any(module.training for module in chain.modules())
        and not has_own_functions()
        and not is_capturing()
    )


def evaluate_to_last(
    scope: Scope, chain: Any, evaluate: Callable[..., Any]
) -> tuple[Any, Dependencies | None]:
    """A fresh value, kept in `scope` if everything that it depends on is known.

    It is evaluated outside of inference mode, so that every thread and mode can use it. If it is
    not kept, its dependencies are returned as well.
    """
    scope.entries.pop(chain, None)
    record = scope.record_of(chain)
    record.misses += 1
    record.together = 1
    gradients = is_grad_enabled()  # leaving inference mode enables gradients
    with torch.inference_mode(False), torch.set_grad_enabled(gradients):
        mode, dependencies = current_mode(), Dependencies(chain, closely=True)
        contents = contents_of(scope, chain, dependencies)
        value = dependencies.evaluate(lambda: evaluate(chain, Clock(record.seconds)))
        remembered(chain, value)
        if keep_to_last(scope, chain, value, mode, dependencies, contents):
            return value, None
    record.misses -= 1  # an ordinary scope counts it, if there is one
    return value, dependencies


def keep_to_last(
    scope: Scope,
    chain: Any,
    value: Any,
    mode: Mode,
    dependencies: Dependencies,
    contents: Contents | None,
) -> bool:
    """Keep a fresh value in `scope` if everything that it depends on is known. Whether it was.

    A value in shards is not kept if samples would be compared: each process has samples of its own
    shards. If they differed in one of them, it would evaluate alone, and wait for the others.
    """
    if (
        isinstance(value, Tensor)
        and not value.requires_grad
        and dependencies.is_known
        and not dependencies.has_changed  # by another thread, or by the maps themselves
        and not (contents is not None and are_sharded(chain.originals()))
    ):
        record = scope.record_of(chain)
        entry = Entry(chain, value, mode, dependencies, record, lasts=True, contents=contents)
        if entry.may_be_kept():
            scope.entries[chain] = entry
            return True
    return False


def contents_of(scope: Scope, chain: Any, dependencies: Dependencies) -> Contents | None:
    """The samples that detect uncounted writes to the tensors, as chosen by `check_contents`."""
    chosen = scope.check_contents_of(chain)
    if chosen is False:
        return None
    contents = Contents((watch.tensor for watch in dependencies.watches), anywhere=bool(chosen))
    return contents if contents.samples else None
