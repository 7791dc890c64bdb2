"""A kept value and what it was made from: when it may be used again.

An entry is *current* while a fresh evaluation would give the same tensor with the same
gradient. It holds everything that it compares with, so nothing can be freed and come
back under the same identity or address.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from paramdesc.caching.contents import Contents
from paramdesc.caching.dependencies import Dependencies
from paramdesc.caching.expiry import Expiry, track
from paramdesc.caching.record import Cause, Reason, Record
from paramdesc.caching.watch import UNCOUNTED, Place, Watch, form_of, watch, why_changed
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


class Entry:
    """The value of one chain of maps, with everything that it depends on.

    `why_stale()` tells why a fresh evaluation, here and now, would not give `value`: None
    while it would. `why_stale(True)` leaves the mode aside.

    Args:
        chain: what was evaluated.
        value: what came out.
        mode: the mode before the evaluation.
        dependencies: what went into it.
        record: where reads are counted.
        lasts: whether it is kept for long, and served in inference mode and outside. Without
            gradients, it is then the same for all; where it was evaluated with gradients
            switched on and needs none, it is served with and without.
        contents: what tells of writes that nobody counts, if that is looked at.
    """

    __slots__ = (
        "expiry",
        "places",
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
    ) -> None:
        self.value = value
        self.record = record
        self.since = time.time()
        self.watches = tuple(dependencies.watches)
        self.places = tuple(dependencies.places)
        self.expiry = Expiry()
        self.expiry.tensors = frozenset(id(watch.tensor) for watch in self.watches)
        if value.grad_fn is not None:
            # only the expiry is referenced from the value: an entry there would be a cycle,
            # and the value would outlive its scope until the garbage collector runs
            value.register_hook(self.expiry.consume)  # type: ignore[no-untyped-call]
        self.why_stale = make_check(
            value, self.expiry, mode, chain._modules, dependencies, lasts, contents
        )
        track(chain, self.expiry)

    def may_be_kept(self) -> bool:
        """Whether `why_stale` can tell this entry's circumstances from all others."""
        if any(watch.version == UNCOUNTED for watch in self.watches):
            return False
        return not has_transforms() or belongs_to_transform(watch.tensor for watch in self.watches)


def make_check(
    value: Tensor,
    expiry: Expiry,
    mode: Mode,
    children: dict[str, Any],
    dependencies: Dependencies,
    lasts: bool,
    contents: Contents | None,
) -> Callable[..., Cause | None]:
    """The check of one entry, with all that it needs in reach: it runs at every read.

    Most chains have one tensor to watch. It is compared in line, any others in a loop.
    """
    maps = dict(children)
    version = UNCOUNTED if value.is_inference() else value._version
    notes = len(value.__dict__)
    needs_gradient_itself = value.requires_grad
    hooks = 0 if value._backward_hooks is None else len(value._backward_hooks)
    first, *rest = dependencies.watches or (watch(Place({0: value}, 0, value)),)
    holder, key, tensor, tensor_version, place, form, needs_gradient, _ = first
    gradients, inference, more = mode[0], mode[1], mode[2:]
    is_special = any(more)
    with_all_gradients = lasts and gradients
    # numbers that a map of this library or torch makes are of the dtype of its input
    dtype = torch.get_default_dtype() if dependencies.is_foreign else None
    # plain tuples: to take a named one apart takes twice as long
    others = [tuple(watch) for watch in rest]
    places = [tuple(place) for place in dependencies.places]
    counted, sizes, empty = dependencies.counted, dependencies.sizes, tuple(dependencies.empty)
    parts: tuple[Expiry, ...] = tuple(entry.expiry for entry in dependencies.entries)

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
            if dtype is not None and torch.get_default_dtype() is not dtype:
                return Cause(Reason.OTHER_MODE)
        if version != UNCOUNTED and value._version != version:
            return Cause(Reason.VALUE_WRITTEN)
        if value.requires_grad is not needs_gradient_itself or len(value.__dict__) != notes:
            return Cause(Reason.VALUE_MARKED)
        if value._backward_hooks is not None and len(value._backward_hooks) != hooks:
            return Cause(Reason.VALUE_MARKED)
        if children != maps:
            return Cause(Reason.MAPS)
        name = key
        try:
            if (
                holder[key] is not tensor
                or tensor._version != tensor_version
                or (place and tensor.data_ptr() != place)
                or (form is not None and form_of(tensor, bool(place)) != form)
                or tensor.requires_grad is not needs_gradient
            ):
                return why_changed(first)
            for there, name, x, x_version, x_place, x_form, x_needs_gradient, _ in others:
                if (
                    there[name] is not x
                    or x._version != x_version
                    or (x_place and x.data_ptr() != x_place)
                    or (x_form is not None and form_of(x, bool(x_place)) != x_form)
                    or x.requires_grad is not x_needs_gradient
                ):
                    return why_changed(
                        Watch(there, name, x, x_version, x_place, x_form, x_needs_gradient, None)
                    )
            for there, name, attribute in places:
                if there[name] is not attribute:
                    return Cause(Reason.ATTRIBUTE, str(name))
            if any(empty) or list(map(len, counted)) != sizes:
                return Cause(Reason.ATTRIBUTE)
        except LookupError:
            return Cause(Reason.REPLACED, str(name))
        for part in parts:
            if part.cause is not None:
                return part.cause
        if contents is not None and contents.are_other():
            return Cause(Reason.REWRITTEN)
        return None

    return why_stale
