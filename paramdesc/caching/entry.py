"""A cached value and what it was computed from: when it may be used again.

An entry is *current* while a fresh evaluation would give the same tensor with the same
gradient. It holds everything that it compares with, so nothing can be freed and come
back under the same identity or address.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from paramdesc.caching.record import Cause, Reason, Record
from paramdesc.torch_internals.mode import (
    Mode,
    belongs_to_transform,
    count_dispatch_modes,
    current_mode,
    has_autocast,
    has_transforms,
    is_grad_enabled,
    is_inference,
    is_tracing,
)
from paramdesc.torch_internals.tensors import address

__all__ = ["Entry", "Watch", "parameters_in", "watch_originals", "watch_owned"]

UNCOUNTED = -1  # torch does not count the changes of inference tensors

# what every module has, none of it read by a map; its training flag is read
_MODULE_STATE = frozenset(vars(Module())) - {"training"}


class Watch(NamedTuple):
    """One tensor, where it was found and in which state."""

    holder: Any  # a dict or a list: holder[key] is the tensor as long as nobody replaces it
    key: Any
    tensor: Tensor
    version: int
    address: int  # in bytes; 0 where there is none to compare (meta, fake, wrapped, empty)
    form: Any  # compared there, and for a value that is kept for long: `.data` may be a part
    needs_gradient: bool
    storage: Any  # held so that its address is not given to another tensor


class Attribute(NamedTuple):
    """One plain attribute of a map, its training flag included."""

    holder: Any
    key: Any
    value: Any


class Graph:
    """Knows whether a backward pass has gone through the value that carries it."""

    __slots__ = ("consumed",)

    def __init__(self) -> None:
        self.consumed = False

    def consume(self, gradient: Tensor) -> None:
        self.consumed = True


def watch(holder: Any, key: Any, tensor: Tensor, closely: bool = False) -> Watch:
    place = address(tensor)
    storage = tensor.untyped_storage() if place else None
    version = UNCOUNTED if tensor.is_inference() else tensor._version
    is_exact = closely and bool(place) and tensor.layout == torch.strided
    form: Any = None if place and not is_exact else form_of(tensor, is_exact)
    return Watch(holder, key, tensor, version, place, form, tensor.requires_grad, storage)


def form_of(tensor: Tensor, is_exact: bool) -> Any:
    """What tells it from another tensor without an address; or at the same one, if `is_exact`."""
    # no function that leaves the interpreter, as is_set_to does: other threads would come first
    return (tensor.shape, tensor.stride() if is_exact else tensor.dtype, tensor.device)


def tensors_in(holders: Iterable[Any]) -> Iterator[tuple[Any, Any, Tensor]]:
    """Where the tensors in these dicts and lists are."""
    for holder in holders:
        items = holder.items() if hasattr(holder, "items") else enumerate(holder)
        for key, value in items:
            if isinstance(value, Tensor):
                yield holder, key, value


def watch_originals(chain: Module, closely: bool = False) -> tuple[Watch, ...]:
    """Watch the tensors that `chain` itself holds. Take it *before* an evaluation.

    Another thread may write to them meanwhile, and the value is then of neither version.
    """
    # in a replica of nn.DataParallel they are plain attributes
    holders = (chain._parameters, chain._buffers, vars(chain))
    return tuple(watch(*place, closely) for place in tensors_in(holders))


class Owned(NamedTuple):
    """What the maps of a chain own."""

    watches: tuple[Watch, ...]
    attributes: tuple[Attribute, ...]
    counted: list[Any]  # dicts and lists: a new attribute may hide one of the class


# what a change of a map adds to, or takes from; for the chain itself, the hooks
_COUNTED = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")


def watch_owned(chain: Module, closely: bool = False) -> Owned:
    """Watch what the maps of `chain` own. Take it *after* an evaluation, which may write to it.

    `closely` also tells what else may change in the long life of a value: what is added where
    nothing was.
    """
    holders: list[Any] = []
    attributes: list[Attribute] = []
    counted: list[Any] = []
    for module in chain.modules():
        state = vars(module)
        if closely:
            counted += (state[name] for name in _COUNTED[3 * (module is chain) :])
        if module is chain:
            continue
        counted.append(state)
        holders += (module._parameters, module._buffers)
        attributes += (Attribute(module._modules, *item) for item in module._modules.items())
        for held in (module._parameters, module._buffers) if closely else ():
            attributes += (Attribute(held, *item) for item in held.items() if item[1] is None)
        for name in state.keys() - _MODULE_STATE:
            value = state[name]
            attributes.append(Attribute(state, name, value))
            if isinstance(value, Tensor):
                holders.append({name: value})
            elif isinstance(value, (list, tuple, dict)):
                holders.append(value)
                counted += [value] * closely
    watches = tuple(watch(*place, closely) for place in tensors_in(holders))
    return Owned(watches, tuple(attributes), counted)


def parameters_in(owned: Owned) -> list[tuple[int, int]]:
    """The parameters of the maps, with their versions. An evaluation does not write to them."""
    tensors = [(watch.tensor, watch.version) for watch in owned.watches]
    return [(id(x), version) for x, version in tensors if isinstance(x, Parameter)]


class Entry:
    """The value of one chain of maps, with everything that it depends on.

    `why_stale()` tells why a fresh evaluation, here and now, would not give `value`: None
    while it would. `why_stale(True)` leaves the mode aside.

    Args:
        chain: what was evaluated.
        value: what came out.
        mode: the mode before the evaluation.
        originals: the tensors that the chain itself holds, watched before it.
        record: where reads are counted.
        lasts: whether it is kept for long, and served in inference mode and outside. Without
            gradients, it is then the same for all; where it was evaluated with gradients
            switched on and needs none, it is served with and without.
    """

    __slots__ = ("graph", "record", "since", "value", "watches", "why_stale")

    def __init__(
        self,
        chain: Module,
        value: Tensor,
        mode: Mode,
        originals: tuple[Watch, ...],
        record: Record,
        lasts: bool = False,
    ) -> None:
        owned = watch_owned(chain, lasts)
        self.value = value
        self.record = record
        self.since = time.time()
        self.watches = originals + owned.watches
        self.graph = Graph()
        if value.grad_fn is not None:
            # only the flag is referenced from the value: an entry there would be a cycle,
            # and the value would outlive its scope until the garbage collector runs
            value.register_hook(self.graph.consume)  # type: ignore[no-untyped-call]
        self.why_stale = make_check(
            value, self.graph, mode, chain._modules, self.watches, owned, lasts
        )

    def may_be_kept(self) -> bool:
        """Whether `why_stale` can tell this entry's circumstances from all others."""
        if any(watch.version == UNCOUNTED for watch in self.watches):
            return False
        return not has_transforms() or belongs_to_transform(watch.tensor for watch in self.watches)


def make_check(
    value: Tensor,
    graph: Graph,
    mode: Mode,
    children: dict[str, Module | None],
    watches: tuple[Watch, ...],
    owned: Owned,
    lasts: bool,
) -> Callable[..., Cause | None]:
    """The check of one entry, with all that it needs in reach: it runs at every read.

    Most chains have one tensor to watch. It is compared in line, any others in a loop.
    """
    maps = dict(children)
    version = UNCOUNTED if value.is_inference() else value._version
    first, *rest = watches or (watch({0: value}, 0, value),)
    holder, key, tensor, tensor_version, place, form, needs_gradient, _ = first
    gradients, inference, more = mode[0], mode[1], mode[2:]
    is_special = any(more)
    with_all_gradients = lasts and gradients
    # plain tuples: to take a named one apart takes twice as long
    others = [tuple(watch) for watch in rest]
    places = [tuple(place) for place in owned.attributes]
    counted, sizes = owned.counted, list(map(len, owned.counted))

    def why_stale(in_any_mode: bool = False) -> Cause | None:
        if graph.consumed:
            return Cause(Reason.CONSUMED)
        if not in_any_mode:
            if is_grad_enabled() is not gradients and not with_all_gradients:
                return Cause(Reason.GRAD_MODE)
            if is_inference() is not inference and not lasts:
                return Cause(Reason.INFERENCE_MODE)
            if (
                more != current_mode()[2:]
                if is_special
                else has_autocast() or has_transforms() or count_dispatch_modes() or is_tracing()
            ):
                return Cause(Reason.OTHER_MODE)
        if version != UNCOUNTED and value._version != version:
            return Cause(Reason.VALUE_WRITTEN)
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
            if list(map(len, counted)) != sizes:
                return Cause(Reason.ATTRIBUTE)
        except LookupError:
            return Cause(Reason.REPLACED, str(name))
        return None

    return why_stale


def why_changed(watch: Watch) -> Cause:
    """What has happened to a tensor that is not as it was."""
    tensor, name = watch.tensor, str(watch.key)
    if watch.holder[watch.key] is not tensor:
        return Cause(Reason.REPLACED, name)
    if tensor.requires_grad is not watch.needs_gradient:
        return Cause(Reason.REQUIRES_GRAD, name)
    is_written = tensor._version != watch.version
    return Cause(Reason.WRITTEN if is_written else Reason.REPLACED, name)
