"""The description of a map as JSON: its class, and the arguments that it was made with."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from paramdesc import parametrizations
from paramdesc.chain.function_map import FunctionMap
from paramdesc.errors import RecipeError

__all__ = ["check_sizes", "count_entries", "describe", "describe_checked", "make_map"]


def describe_checked(each: Module, path: str) -> dict[str, Any]:
    """`describe`, after checking that the description makes an equal map."""
    description = describe(each, path)
    try:
        made = make_map(json.loads(json.dumps(description)), outside_classes(each))
    except Exception as error:
        raise RecipeError.not_described(path, each) from error
    if repr(made) != repr(each) or describe(made, path) != description:
        raise RecipeError.not_described(path, each)
    return description


def outside_classes(each: Module) -> list[type[Module]]:
    return [type(module) for module in each.modules() if not is_ours(type(module))]


def is_ours(cls: type) -> bool:
    return getattr(parametrizations, cls.__name__, None) is cls


STORED_AS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("Blocks", "maps"): lambda each: list(each.maps),
    ("Blocks", "blocks"): lambda each: each.sizes or each.count,
    ("Stacked", "parametrization"): lambda each: each.map,
    ("Flattened", "parametrization"): lambda each: each.map,
    ("Scaled", "dim"): lambda each: each.axes or None,
    ("ReZero", "dim"): lambda each: each.axes or None,
    ("Rounded", "dim"): lambda each: None if each.whole else each.axes,
    ("AlmostOrthogonal", "band"): lambda each: (each.low, each.high),
    ("Sphere", "dim"): lambda each: None if each.is_whole else each.dim,
    ("SpectralNorm", "n_power_iterations"): lambda each: (
        None if each.more_for_large else each.n_power_iterations
    ),
    ("SpectralNorm", "tolerance"): lambda each: each.accuracy,
    ("ConvolutionSpectralNorm", "tolerance"): lambda each: each.accuracy,
    ("ConvolutionSpectralNorm", "padding_mode"): lambda e: "circular" if e.circular else "zeros",
}
"""The arguments that a map does not keep under their own name."""


def describe(each: Module, path: str = "") -> dict[str, Any]:
    """The class of a map and its arguments, `{"map": "SpectralNorm", "bound": 0.9}`."""
    cls = type(each)
    if isinstance(each, FunctionMap):
        raise RecipeError.not_described(path, each)
    description: dict[str, Any] = {
        "map": cls.__name__ if is_ours(cls) else f"{cls.__module__}.{cls.__qualname__}"
    }
    if cls is parametrizations.Compose:
        whole: Any = each
        description["*"] = [describe(inner, path) for inner in (whole.first, *whole.then)]
        return description
    for name, parameter in parameters_of(cls).items():
        find = STORED_AS.get((cls.__name__, name)) if is_ours(cls) else None
        value = find(each) if find else getattr(each, name, inspect.Parameter.empty)
        if value is inspect.Parameter.empty or inspect.ismethod(value):
            raise RecipeError.not_described(path, each)
        if isinstance(value, Tensor) and name not in each.state_dict(keep_vars=True):
            raise RecipeError.not_described(path, each)  # its numbers are not in the checkpoint
        if isinstance(value, Tensor) or value != parameter.default:
            description[name] = to_json(value, path)
    return description


def parameters_of(cls: type) -> Mapping[str, inspect.Parameter]:
    """The arguments of the constructor that have a name."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(cls).parameters
    return {name: each for name, each in found.items() if each.kind not in kinds}


def to_json(value: Any, path: str) -> Any:
    if isinstance(value, Module):
        return describe(value, path)
    if isinstance(value, Tensor):
        return {"tensor": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, (list, tuple)):
        return [to_json(each, path) for each in value]
    return value


def from_json(value: Any, maps: Iterable[type[Module]]) -> Any:
    if isinstance(value, dict) and "map" in value:
        return make_map(value, maps)
    if isinstance(value, dict):
        return stand_in(value)
    if isinstance(value, list):
        return [from_json(each, maps) for each in value]
    return value


def make_map(description: Mapping[str, Any], maps: Iterable[type[Module]] = ()) -> Module:
    """The map that `describe` has described.

    Only classes of this library and those in `maps` are used: a file must not choose which code
    runs.

    Raises:
        RecipeError: a ValueError, for any other class, and for arguments that it does not accept.
    """
    listed = list(maps)
    given: Any = description
    name = given.get("map") if isinstance(given, Mapping) else None
    if not isinstance(name, str):
        raise RecipeError.malformed("a map", description)
    known = {f"{each.__module__}.{each.__qualname__}": each for each in listed}
    cls = getattr(parametrizations, name, None) or known.get(name)
    if not (isinstance(cls, type) and issubclass(cls, Module)):
        raise RecipeError.unknown(name)
    arguments = {key: value for key, value in description.items() if key not in ("map", "*")}
    try:
        return cls(
            *(make_map(inner, listed) for inner in description.get("*", ())),
            **{key: as_given(from_json(value, listed)) for key, value in arguments.items()},
        )
    except RecipeError:
        raise
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        raise RecipeError.malformed(f"the map {name!r}", description, str(error)) from error


def stand_in(value: Mapping[str, Any]) -> Tensor:
    """A tensor of the shape and dtype that a file gives; `load_state_dict` fills in its numbers."""
    shape: Any = value.get("tensor")
    dtype: Any = getattr(torch, str(value.get("dtype")), None)
    is_shape = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if not (is_shape and isinstance(dtype, torch.dtype)):
        raise RecipeError.malformed("a tensor", value)
    return torch.ones(shape, dtype=dtype)


def as_given(value: Any) -> Any:
    """Sequences of numbers are tuples in signatures; JSON has lists only."""
    is_plain = isinstance(value, list) and not any(isinstance(each, Module) for each in value)
    return tuple(value) if is_plain else value


def count_entries(model: Module) -> int:
    return sum(x.numel() for x in (*model.parameters(), *model.buffers()) if not is_lazy(x))


def check_sizes(described: Any, most: int) -> None:
    """Raise an error for a tensor of more entries than the model has, before it is made."""
    if isinstance(described, Mapping):
        shape = described.get("tensor")
        if isinstance(shape, list) and all(type(n) is int for n in shape):
            if math.prod(shape) > most:
                raise RecipeError.malformed("a tensor", described, "the model is smaller")
            return
        described = list(described.values())
    if isinstance(described, list):
        for each in described:
            check_sizes(each, most)
