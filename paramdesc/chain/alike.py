"""Finds the chains that can be evaluated as one batch: those that differ only in tensor entries."""

from __future__ import annotations

import enum
import functools
import types
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from paramdesc.chain.chain import Chain
from paramdesc.chain.parametrization import Parametrization
from paramdesc.torch_internals.module_call import (
    CALL,
    HOOKS,
    IMPLEMENTATION,
    backward_hooks,
    backward_pre_hooks,
    forward_hooks,
    forward_pre_hooks,
)
from paramdesc.torch_internals.placeholders import is_stand_in

__all__ = ["Alike", "Spot", "batching_of"]

Spot = tuple[dict[str, Any], str]
"""Where a tensor of a chain is: the dict that holds it, and its name there."""

_MODULE_STATE = frozenset(vars(Module())) - {"training"}
# what an evaluation uses up, or what differs without a difference to the value
_TRANSIENT = frozenset({"is_due", "is_led", "_last_seen", "_moved"})
_PLAIN = (
    *(bool, int, float, complex, str, bytes, type(None), range, slice),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size),
)


_OPEN = ("paramdesc.", "torch.distributions.")
"""Modules whose objects are equal if their attributes are."""


class DifferentError(Exception):
    """The chain cannot be evaluated together with others."""


def batching_of(module: Module) -> str:
    """How to evaluate a map together with others that are alike, see `Parametrization`.

    The declaration of a class applies to subclasses in this library, and to others only if they
    declare it too, since they may override the methods that it is about.
    """
    if "batching" in vars(module):
        return str(vars(module)["batching"])
    package = type(module).__module__.partition(".")[0]
    for base in type(module).__mro__:
        if base.__module__.partition(".")[0] != package:
            break
        if "batching" in vars(base):
            return str(vars(base)["batching"])
        if "forward" in vars(base):
            break
    return "vmap"


class Alike:
    """What is needed to evaluate a chain together with others, as long as its maps are the same.

    - `settings` is equal for chains that differ in tensors only. It holds no references, so it may
      be compared only while the chains exist.
    - `spots` lists the places of its tensors, the originals first, in the order of its maps.
    - `flags` are the dicts of those maps that may have a state to move.
    """

    __slots__ = ("flags", "settings", "spots")

    def __init__(self, settings: Any, spots: list[Spot], flags: list[dict[str, Any]]) -> None:
        self.settings = settings
        self.spots = spots
        self.flags = flags

    @classmethod
    def of(cls, chain: Chain) -> Alike | None:
        """None if `chain` must be evaluated alone."""
        try:
            settings = settings_of(chain)
        except DifferentError:
            return None
        maps = [m for parametrization in chain.maps() for m in parametrization.modules()]
        flags = [vars(m) for m in maps if isinstance(m, Parametrization)]
        return cls(settings, spots_of(chain), flags)

    def tensors(self) -> list[Any]:
        """The tensors that are there now."""
        return [holder[name] for holder, name in self.spots]

    def form(self) -> Any:
        """What chains that are evaluated together must have in common. None if impossible."""
        tensors = form_of(self.tensors())
        due = tuple([bool(state.get("is_due")) for state in self.flags])
        return None if tensors is None else (self.settings, tensors, due)

    def mark_moved(self) -> None:
        """Note that the states of the maps have moved."""
        for state in self.flags:
            if state.get("is_due"):
                state["is_due"] = False


def settings_of(chain: Chain) -> Any:
    if not applies_maps_only(chain):
        raise DifferentError
    return (
        type(chain),
        tuple(chain._parameters),
        tuple(chain._buffers),
        tuple(
            (path, *settings_of_module(module))
            for path, module in chain.named_modules()
            if module is not chain
        ),
    )


def applies_maps_only(chain: Chain) -> bool:
    """Whether to evaluate `chain` means to apply the `forward` of its maps to its own originals."""
    own = vars(chain)
    return (
        len(own["_parameters"]) + len(own["_buffers"]) == (1 if chain.is_tensor else chain.ntensors)
        and type(chain).is_applied_plainly
        and Module.__call__ is CALL
        and not any(hooks for hooks in (forward_hooks, forward_pre_hooks))
        and not any(hooks for hooks in (backward_hooks, backward_pre_hooks))
        and is_called_plainly(chain)
    )


def is_called_plainly(module: Module) -> bool:
    """Whether a call of `module` runs the `forward` of its class, and nothing else."""
    state = vars(module)
    return (
        not any(state[name] for name in HOOKS)
        and state.keys().isdisjoint(("forward", "_call_impl", "_compiled_call_impl"))
        and type(module).__call__ is CALL
        and type(module)._call_impl is IMPLEMENTATION
    )


def settings_of_module(module: Module) -> tuple[Any, ...]:
    if isinstance(module, (Chain, torch.jit.ScriptModule)) or not is_called_plainly(module):
        raise DifferentError
    state = vars(module)
    if batching_of(module) == "never":
        raise DifferentError
    if isinstance(module, Parametrization) and module.warm_start and not module.has_state():
        raise DifferentError
    is_own = type(module).__module__.partition(".")[0] in ("paramdesc", "torch")
    if not is_own and any(
        type(x) in (list, dict, set) for x in map(state.get, attributes_of(state))
    ):
        raise DifferentError  # the map may change their contents, separately for each map
    return (
        type(module),
        tuple((name, value is None) for name, value in state["_parameters"].items()),
        tuple((name, value is None) for name, value in state["_buffers"].items()),
        tuple((name, setting(state[name])) for name in attributes_of(state)),
    )


def attributes_of(state: dict[str, Any]) -> list[str]:
    """The names of what a map holds besides tensors and modules."""
    return [name for name in state if name not in _MODULE_STATE and name not in _TRANSIENT]


def setting(value: Any, depth: int = 0) -> Any:
    """Something that is equal for equal settings, and different for others."""
    kind = type(value)
    if isinstance(value, (Tensor, Module)):
        return id(value)
    if kind is float:
        return kind, repr(value)  # zero has a sign
    if kind in _PLAIN:
        return kind, value if kind is not slice else repr(value)
    if depth > 5 or isinstance(value, (type, enum.Enum)):
        return id(value)
    if kind in (list, tuple):
        return kind, tuple(setting(part, depth + 1) for part in value)
    if kind is dict:
        return kind, tuple((setting(k, depth + 1), setting(v, depth + 1)) for k, v in value.items())
    if kind is types.FunctionType:
        return setting_of_function(value, depth + 1)
    if kind is types.MethodType:
        return kind, setting(value.__func__, depth + 1), setting(value.__self__, depth + 1)
    if kind is functools.partial:
        parts = (value.func, value.args, value.keywords)
        return kind, tuple(setting(part, depth + 1) for part in parts)
    if kind.__module__.startswith(_OPEN) and type(getattr(value, "__dict__", None)) is dict:
        return kind, tuple((name, setting(part, depth + 1)) for name, part in vars(value).items())
    return id(value)


def setting_of_function(function: types.FunctionType, depth: int) -> Any:
    """Functions made in a loop are equal if they have the same code, closed over equal things."""
    try:
        cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError:  # an empty cell
        return id(function)
    parts = (cells, function.__defaults__, function.__kwdefaults__, vars(function))
    code = id(function.__code__), id(function.__globals__)
    return (types.FunctionType, code, tuple(setting(part, depth) for part in parts))


def spots_of(chain: Chain) -> list[Spot]:
    """The places of the tensors of `chain`, the originals first, in the order of its maps."""
    own: Any = vars(chain)
    found: list[Spot] = [
        (own["_parameters"] if name in own["_parameters"] else own["_buffers"], name)
        for name in chain.original_names()
    ]
    for parametrization in chain.maps():
        for module in parametrization.modules():
            state: Any = vars(module)
            found += [
                (holder, name)
                for holder in (state["_parameters"], state["_buffers"])
                for name, value in holder.items()
                if value is not None
            ]
    return found


def is_channels_last(x: Tensor) -> bool:
    if x.ndim not in (4, 5) or x.is_contiguous():
        return False
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.is_contiguous(memory_format=formats[x.ndim])


def form_of(tensors: list[Any]) -> Any:
    """The properties of tensors besides their entries. None if they cannot be stacked."""
    form: list[Any] = []
    for x in tensors:
        if (
            (type(x) is not Parameter and type(x) is not Tensor and not is_stand_in(x))
            or x.layout is not torch.strided
            or x._backward_hooks
            or x.is_meta
            or is_channels_last(x)  # so is the value that it gives alone
        ):
            return None
        form.append((x.shape, x.dtype, x.device, x.requires_grad))
    return tuple(form)
