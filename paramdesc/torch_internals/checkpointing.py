"""What paramdesc knows of `torch.utils.checkpoint`, in its form without reentrant autograd.

A checkpointed region runs twice, and must save the same tensors both times: in the forward
pass, and in the backward pass to get back what it did not keep. Whether a scope answers a
read decides what is saved, and the scopes of the two runs differ. So a region remembers
where the values of its scoped reads came from, and its second run is given the same.

Both runs are recognized by the hooks that they set for saved tensors.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import CodeType
from typing import Any

from torch import Tensor
from torch._C._autograd import _top_saved_tensors_default_hooks as saving_hooks
from torch.utils import checkpoint

__all__ = ["Region", "Rerun", "is_rerun", "region_of", "saving_hooks"]


def pack_hook_of(hooks: type[Any]) -> CodeType:
    """The code of the function that these hooks save a tensor with."""
    constants = hooks.__init__.__code__.co_consts
    return next(c for c in constants if isinstance(c, CodeType) and c.co_name == "pack_hook")


_RUN = pack_hook_of(checkpoint._checkpoint_hook)
_RERUN = pack_hook_of(checkpoint._recomputation_hook)


def code_of(hooks: Any) -> CodeType | None:
    return getattr(inspect.unwrap(hooks[0]), "__code__", None)


def is_rerun(hooks: Any) -> bool:
    """Whether these are the hooks of a region's second run."""
    return code_of(hooks) is _RERUN


class Region:
    """The scoped reads of a region's first run, in order.

    Of a read that gave a value from before the region it holds that value, without its graph,
    which may lead back here. Of any other it holds the number of the read that evaluated.
    """

    def __init__(self) -> None:
        self.reads: list[tuple[Any, Tensor | int]] = []
        self.evaluated: list[tuple[weakref.ref[Tensor], int]] = []

    def add(self, chain: Any, value: Any, *, is_fresh: bool) -> None:
        """Remember a read of `chain` that gave `value`."""
        number = len(self.reads)
        if is_fresh:
            if isinstance(value, Tensor):
                self.evaluated.append((weakref.ref(value), number))
            self.reads.append((chain, number))
            return
        origin = next((k for there, k in self.evaluated if there() is value), None)
        if origin is None:
            twin = value.detach().requires_grad_(value.requires_grad)
        self.reads.append((chain, twin if origin is None else origin))


class Rerun:
    """A region's second run."""

    def __init__(self, region: Region) -> None:
        self.reads = iter(region.reads)
        self.values: dict[int, Any] = {}
        self.number = 0

    def read(self, chain: Any, evaluate: Callable[[Any], Any]) -> Any:
        """The value of `chain` from where its first run had it."""
        expected, origin = next(self.reads, (None, 0))
        if expected is not chain:
            return evaluate(chain)  # it does something else this time, which torch may report
        self.number += 1
        if isinstance(origin, Tensor):
            return origin
        if origin not in self.values:
            self.values[origin] = evaluate(chain)
        return self.values[origin]


def region_of(
    hooks: Any, rerun_in: Callable[[Rerun], AbstractContextManager[None]]
) -> Region | None:
    """The region whose first run has set these hooks, if it is one.

    Args:
        hooks: what `saving_hooks(True)` gave.
        rerun_in: makes the context in which its second run will be.
    """
    if code_of(hooks) is not _RUN:
        return None
    frame = hooks[0].__closure__[_RUN.co_freevars.index("frame")].cell_contents
    recompute = frame.recompute_fn
    region: Region | None = getattr(recompute, "region", None)
    if region is None:
        region = Region()

        def recompute_as_before(*args: Any) -> None:
            with rerun_in(Rerun(region)):
                recompute(*args)

        recompute_as_before.region = region  # type: ignore[attr-defined]
        frame.recompute_fn = recompute_as_before
    return region
