"""Recipes: which maps the tensors of a model have, as JSON.

A checkpoint holds the originals of a parametrized model, but not its maps. A recipe holds the maps:
their classes, and the arguments that they were made with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Module

from paramdesc.errors import RecipeError
from paramdesc.integrations.descriptions import (
    check_sizes,
    count_entries,
    describe,
    describe_checked,
    make_map,
)
from paramdesc.models.parametrize import parametrize
from paramdesc.models.tying import tie_weights
from paramdesc.registration.collection import get_parametrizations
from paramdesc.registration.sharing import leave
from paramdesc.registration.snapshot import Snapshot

__all__ = [
    "FILE",
    "Recipe",
    "apply_recipe",
    "load_recipe",
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


def has_these_maps(chain: Any, entry: Mapping[str, Any]) -> bool:
    """Whether a model class has registered the maps of the entry itself."""
    if chain is None or "maps" not in entry:
        return False
    described = [describe(each) for each in chain]
    return bool(without_dtypes(described) == without_dtypes(entry["maps"]))


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
    check_entries(stored.get("tensors"))
    tensors: Recipe = stored["tensors"]
    return tensors
