"""A kept value with what it was computed from, and the check whether it may be used again.

An entry is *current* while a fresh evaluation would give the same tensor with the same gradient. It
holds references to everything that it compares with, so that no new object can have the identity
or address of one that was freed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from paramdesc.caching.contents import Contents
from paramdesc.caching.dependencies import Dependencies
from paramdesc.caching.expiry import Expiry, track
from paramdesc.caching.origin import Origin, origin_of
from paramdesc.caching.record import Cause, Reason, Record
from paramdesc.caching.watch import UNCOUNTED
from paramdesc.torch_internals.mode import (
    Mode,
    belongs_to_transform,
    count_dispatch_modes,
    count_function_modes,
    current_mode,
    has_autocast,
    has_transforms,
    is_grad_enabled,
    is_inference,
    is_tracing,
)

__all__ = ["Entry"]

get_default_dtype = torch.get_default_dtype


class Entry:
    """The value of one chain of maps, with everything that it depends on.

    `why_stale()` returns why a fresh evaluation, here and now, would not give `value`, or None if
    it would. If it would, and the device of `value` has streams, the current stream has been made
    to wait for `value`. `why_stale(True)` ignores the mode and the stream.

    Args:
        chain: the chain that was evaluated.
        value: the result.
        mode: the mode before the evaluation.
        dependencies: what the value depends on.
        record: where reads are counted.
        lasts: whether the value outlives its block. It needs no gradient, and is used both inside
            and outside of inference mode. If gradients were enabled when it was evaluated, it is
            used with and without them.
        contents: the samples that detect uncounted writes, if they are compared.
        batch: the expiries of the values that have their graph in common with this one, if it was
            evaluated together with others.
    """

    __slots__ = (
        "expiry",
        "node",
        "record",
        "since",
        "value",
        "watches",
        "why_stale",
    )

    def __init__(
        self,
        chain: Any,
        value: Tensor,
        mode: Mode,
        dependencies: Dependencies,
        record: Record,
        lasts: bool = False,
        contents: Contents | None = None,
        batch: list[Expiry] | None = None,
    ) -> None:
        self.value = value
        self.node: Node | None = None  # of a value whose gradients are deferred
        self.record = record
        self.since = time.time()
        self.watches = tuple(dependencies.watches)
        self.expiry = Expiry()
        watches = self.watches
        for part in dependencies.entries:
            watches += part.watches
        self.expiry.tensors = frozenset([id(watch.tensor) for watch in watches])
        if value.grad_fn is not None and batch is not None:
            batch.append(self.expiry)
        elif value.grad_fn is not None:
            # a hook that refers to the entry would be a reference cycle: the value would outlive
            # its scope until the garbage collector runs
            value.register_hook(self.expiry.consume)  # type: ignore[no-untyped-call]
        check = make_check(value, self.expiry, mode, chain._modules, dependencies, lasts, contents)
        origin = origin_of(value)
        self.why_stale = check if origin is None else make_check_of_place(check, origin)
        track(chain, self.expiry)

    def may_be_kept(self) -> bool:
        """Whether `why_stale` can detect every change: not so for inference tensors."""
        if any(watch.version == UNCOUNTED for watch in self.watches):
            return False
        return not has_transforms() or belongs_to_transform(watch.tensor for watch in self.watches)


def make_check_of_place(
    check: Callable[..., Cause | None], origin: Origin
) -> Callable[..., Cause | None]:
    """`check` for a value on a device with streams."""

    def why_stale(in_any_mode: bool = False) -> Cause | None:
        if in_any_mode:
            return check(True)
        # first, because the check may look at numbers, which a capture does not allow
        return check() if origin.arrive() else Cause(Reason.CAPTURE)

    return why_stale


def make_check(
    value: Tensor,
    expiry: Expiry,
    mode: Mode,
    children: dict[str, Any],
    dependencies: Dependencies,
    lasts: bool,
    contents: Contents | None,
) -> Callable[..., Cause | None]:
    """The check of one entry. It runs at every read, so all that it needs is a local name."""
    maps = dict(children)
    version = UNCOUNTED if value.is_inference() else value._version
    is_leaf, needs_gradient = value.grad_fn is None, value.requires_grad
    hooks: Any = value._backward_hooks
    notes = len(value.__dict__)
    hook_count = len(hooks or ())
    gradients, inference, more = mode[0], mode[1], mode[2:]
    is_special = any(more)
    with_all_gradients = lasts and gradients
    # maps of this library and of torch create numbers in the dtype of their input
    dtype = torch.get_default_dtype() if dependencies.is_foreign else None
    check = dependencies.make_check()
    parts = tuple(dependencies.entries)

    def why_stale(in_any_mode: bool = False) -> Cause | None:
        if expiry.cause is not None:
            return expiry.cause
        if not in_any_mode:
            if is_grad_enabled() is not gradients and not with_all_gradients:
                return Cause(Reason.GRAD_MODE)
            if is_inference() is not inference and not lasts:
                return Cause(Reason.INFERENCE_MODE)
            if (
                has_autocast()
                or has_transforms()
                or count_dispatch_modes()
                or is_tracing()
                or count_function_modes()
            ):
                if more != current_mode()[2:]:
                    return Cause(Reason.OTHER_MODE)
            elif is_special:
                return Cause(Reason.OTHER_MODE)
            if dtype is not None and get_default_dtype() is not dtype:
                return Cause(Reason.OTHER_MODE)
        if version != UNCOUNTED and value._version != version:
            return Cause(Reason.VALUE_WRITTEN)
        if (
            (value._backward_hooks is not None if hooks is None else len(hooks) != hook_count)
            or (is_leaf and value.requires_grad is not needs_gradient)
            or (value.__dict__ and len(value.__dict__) != notes)
        ):
            return Cause(Reason.VALUE_MARKED)
        if children != maps:
            return Cause(Reason.MAPS)
        cause = check()
        if cause is not None:
            return cause
        for part in parts:
            inner: Cause | None = part.why_stale(True)
            if inner is not None:
                return inner
        if contents is not None and contents.are_other():
            return Cause(Reason.REWRITTEN)
        return None

    return why_stale
