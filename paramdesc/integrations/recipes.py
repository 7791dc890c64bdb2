"""Recipes: which maps the tensors of a model have, as JSON.

A checkpoint holds the originals of a parametrized model, but not its maps. A recipe holds the maps:
their classes, and the arguments that they were made with.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from paramdesc import parametrizations
from paramdesc.chain.function_map import FunctionMap
from paramdesc.errors import RecipeError
from paramdesc.models.parametrize import parametrize
from paramdesc.models.tying import tie_weights
from paramdesc.registration.collection import get_parametrizations
from paramdesc.registration.sharing import leave
from paramdesc.registration.snapshot import Snapshot

__all__ = [
    "FILE",
    "Recipe",
    "apply_recipe",
    "describe",
    "load_recipe",
    "make_map",
    "recipe_of",
    "save_recipe",
]

FILE = "parametrizations.json"
"""The name of the file beside the weights."""

Recipe = dict[str, dict[str, Any]]
"""For each path of a tensor, `{"maps": [...]}`, or `{"tied": path}` for a tensor that shares the
parametrization at the other path."""


def recipe_of(model: Module) -> Recipe:
    """The recipe of all tensors of `model` that paramdesc parametrizes.

    Raises:
        RecipeError: a ValueError, for a map that JSON cannot describe, and for a map object with
            numbers of its own that parametrizes several tensors.
    """
    found: Recipe = {}
    first: dict[int, str] = {}
    holders: dict[int, str] = {}
    for path, chain in paths_of_chains(model):
        if id(chain) in first:
            found[path] = {"tied": first[id(chain)]}
            continue
        first[id(chain)] = path
        found[path] = {"maps": [describe_checked(each, path) for each in chain]}
        for part in parts_with_numbers(chain):
            if holders.setdefault(id(part), path) != path:
                raise RecipeError.shared(path, holders[id(part)], part)
        if chain.unsafe:
            found[path]["unsafe"] = True
    return found


def parts_with_numbers(chain: Any) -> list[Module]:
    """The maps of a chain, and the modules in them, that hold Parameters or buffers themselves."""
    return [part for each in chain for part in each.modules() if part._parameters or part._buffers]


def paths_of_chains(model: Module) -> list[tuple[str, Any]]:
    """The path and the chain of each parametrized tensor; a tied chain has several paths."""
    chains = {id(chain) for chain in get_parametrizations(model)}
    return [
        (f"{path}.{name}" if path else name, chain)
        for path, module in model.named_modules(remove_duplicate=False)
        for name, chain in getattr(module._modules.get("parametrizations"), "_modules", {}).items()
        if id(chain) in chains
    ]


def apply_recipe(model: Module, recipe: Recipe, maps: Iterable[type[Module]] = ()) -> list[str]:
    """Register the maps of `recipe` on `model`. Returns the paths that `model` does not have.

    Tensors that have exactly these maps already are left as they are. If an exception is raised,
    the model is unchanged.

    Args:
        model: the model. Tensors that are tied already get one parametrization.
        recipe: what `recipe_of` or `load_recipe` has returned.
        maps: classes of maps from outside of this library.
    """
    check_entries(recipe)
    check_sizes(recipe, count_entries(model))
    listed = list(maps)
    prefix = getattr(model, "base_model_prefix", "")
    place = {path: find_path(model, path, prefix) for path in recipe}
    present = dict(paths_of_chains(model))
    found = [
        (at, recipe[path])
        for path, at in place.items()
        if at is not None and not has_these_maps(present.get(at), recipe[path])
    ]
    made = {
        at: [make_map(each, listed) for each in entry["maps"]]
        for at, entry in found
        if "maps" in entry
    }
    snapshot = snapshot_of(model)
    try:
        for unsafe in (False, True):
            chosen = [at for at, x in found if "maps" in x and x.get("unsafe", False) is unsafe]
            for i in range(max((len(made[at]) for at in chosen), default=0)):
                layer = {at: made[at][i] for at in chosen if i < len(made[at])}
                parametrize(model, layer, unsafe=unsafe, append=i > 0)
        for at, entry in found:
            source = place.get(entry.get("tied", ""))
            if source is not None:
                tie_weights(model, source, at)
    except BaseException:
        for chain in get_parametrizations(model):
            if all(chain is not each for each in present.values()):
                leave(chain)
        snapshot.restore()
        raise
    return [path for path, at in place.items() if at is None]


def snapshot_of(model: Module) -> Snapshot:
    tensors = [*model.parameters(), *model.buffers()]
    return Snapshot(list(model.modules()), tensors)


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


def has_these_maps(chain: Any, entry: Mapping[str, Any]) -> bool:
    """Whether a model class has registered the maps of the entry itself."""
    if chain is None or "maps" not in entry:
        return False
    described = [describe(each) for each in chain]
    return without_dtypes(described) == without_dtypes(entry["maps"])


def without_dtypes(described: Any) -> Any:
    """A description as JSON has it, without the dtypes of tensors, which loading may change."""
    return json.loads(json.dumps(described), object_hook=lambda x: x.get("tensor", x))


def check_entries(recipe: Any) -> None:
    """Raise an error if `recipe` does not have the form of `Recipe`."""
    if not isinstance(recipe, Mapping):
        raise RecipeError.malformed("the tensors", recipe)
    for path, entry in recipe.items():
        is_entry = isinstance(entry, Mapping) and (
            isinstance(entry.get("maps"), list) or isinstance(entry.get("tied"), str)
        )
        if not (is_entry and isinstance(entry.get("unsafe", False), bool)):
            raise RecipeError.malformed(f"the entry of {path!r}", entry)


def find_path(model: Module, path: str, prefix: str) -> str | None:
    """The path in `model`, which may be the whole model or its base model."""
    for candidate in (path, path.removeprefix(f"{prefix}."), f"{prefix}.{path}"):
        module, _, name = candidate.rpartition(".")
        try:
            if isinstance(getattr(model.get_submodule(module), name, None), Tensor):
                return candidate
        except AttributeError:
            continue
    return None


def save_recipe(recipe: Recipe, folder: str | Path) -> None:
    """Write `recipe` to `parametrizations.json` in `folder`, or remove the file if it is empty."""
    file = Path(folder) / FILE
    if not recipe:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"format": 1, "tensors": recipe}, indent=2) + "\n")


def load_recipe(folder: str | Path) -> Recipe:
    """The recipe in `folder`; empty if there is none."""
    file = Path(folder) / FILE
    if not file.is_file():
        return {}
    try:
        stored = json.loads(file.read_text())
    except ValueError as error:
        raise RecipeError.malformed(str(file), "no JSON") from error
    if not isinstance(stored, dict):
        raise RecipeError.malformed(str(file), stored)
    if stored.get("format") != 1:
        raise RecipeError.other_format(str(file), stored.get("format"))
    tensors: Recipe = stored.get("tensors")
    check_entries(tensors)
    return tensors


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
    name = description.get("map") if isinstance(description, Mapping) else None
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
    shape, dtype = value.get("tensor"), getattr(torch, str(value.get("dtype")), None)
    is_shape = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if not (is_shape and isinstance(dtype, torch.dtype)):
        raise RecipeError.malformed("a tensor", value)
    return torch.ones(shape, dtype=dtype)


def as_given(value: Any) -> Any:
    """Sequences of numbers are tuples in signatures; JSON has lists only."""
    is_plain = isinstance(value, list) and not any(isinstance(each, Module) for each in value)
    return tuple(value) if is_plain else value
