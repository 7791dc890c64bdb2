"""Saving, loading and resizing parametrized models of transformers.

`save_pretrained` writes `parametrizations.json` beside the weights: the maps of each tensor.
`from_pretrained` registers them before it loads the weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Module, Parameter
from transformers import PreTrainedModel, TrainerCallback
from transformers.utils import cached_file

from paramdesc.errors import RecipeError
from paramdesc.integrations.recipes import (
    FILE,
    apply_recipe,
    load_recipe,
    paths_of_chains,
    recipe_of,
    save_recipe,
)
from paramdesc.integrations.ties import keep_ties, key_in, rename_ties
from paramdesc.models.bake import bake

__all__ = [
    "SaveParametrizations",
    "from_pretrained",
    "keep_ties",
    "resize_token_embeddings",
    "save_pretrained",
]


def save_pretrained(model: Any, folder: str | Path, **options: Any) -> None:
    """`model.save_pretrained(folder)`, with the parametrizations in `parametrizations.json`.

    Args:
        model: a `PreTrainedModel`, with parametrized tensors or without.
        folder: where to save.
        options: those of `save_pretrained`.

    Raises:
        RecipeError: a ValueError, for a map that JSON cannot describe. Nothing is saved.
    """
    recipe = recipe_of(model)
    rename_ties(model)
    if options.get("is_main_process", True):
        save_recipe(recipe, folder)
    if "state_dict" not in options:
        options["state_dict"] = state_dict_without_ties(model)
    model.save_pretrained(folder, **options)


def from_pretrained(
    model_class: Any,
    folder: str | Path,
    *args: Any,
    maps: Iterable[type[Module]] = (),
    **options: Any,
) -> Any:
    """`model_class.from_pretrained(folder)`, parametrized as the model that was saved.

    The model has the class that `from_pretrained` gives, on the device and in the dtype that the
    options say. A folder without `parametrizations.json` gives a plain model.

    Args:
        model_class: a model class of transformers, or an `Auto` class. It may be another one than
            that of the saved model, as long as one is the base model of the other.
        folder: the folder, or a name on the hub.
        args, options: those of `from_pretrained`.
        maps: classes of maps from outside of this library that the file names.

    Raises:
        RecipeError: a ValueError, if the file names a map that is not known, or if the checkpoint
            has none of the originals.
    """
    recipe = load_recipe(find_folder(folder, options))
    asked = options.pop("output_loading_info", False)
    options["output_loading_info"] = True
    if not recipe:
        model, info = model_class.from_pretrained(folder, *args, **options)
        warn_of_originals(info, folder)
        return (model, info) if asked else model
    listed = list(maps)
    plain = concrete(model_class, folder, options)
    left: list[str] = []

    def init(self: Any, *init_args: Any, **init_options: Any) -> None:
        plain.__init__(self, *init_args, **init_options)
        left.extend(apply_recipe(self, recipe, listed))
        keep_ties(self)

    # transformers makes the model on meta and then loads: the maps must be there in between
    parametrized = type(
        plain.__name__, (plain,), {"__init__": init, "__module__": plain.__module__}
    )
    untyped: Any = parametrized
    model, info = untyped.from_pretrained(folder, *args, **options)
    model.__class__ = plain
    if lacks_originals(model, info):
        raise RecipeError.stale(str(folder), FILE)
    if left:
        warnings.warn(
            f"{plain.__name__} does not have these tensors, which are parametrized in "
            f"{FILE}: {', '.join(left)}.",
            stacklevel=2,
        )
    return (model, info) if asked else model


def lacks_originals(model: Module, info: Mapping[str, Any]) -> bool:
    """Whether all originals of `model` are missing from the checkpoint."""
    originals = {
        key_in(path, name)
        for path, chain in paths_of_chains(model)
        for name in chain.state_dict()
        if name.startswith("original")
    }
    return bool(originals) and originals <= set(info["missing_keys"])


def warn_of_originals(info: Mapping[str, Any], folder: str | Path) -> None:
    found = [key for key in info["unexpected_keys"] if "parametrizations." in key]
    if found:
        warnings.warn(
            f"The checkpoint has originals of parametrized tensors, such as {min(found)}. They "
            f"were not loaded, because {folder} has no {FILE}. Save with "
            "paramdesc.integrations.transformers.save_pretrained(model, folder).",
            stacklevel=3,
        )


HUB = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
)
"""The options of `from_pretrained` that say where files are."""


def find_folder(folder: str | Path, options: dict[str, Any]) -> Path:
    """The folder of `parametrizations.json`, which may be on the hub."""
    if Path(folder).is_dir():
        return Path(folder, options.get("subfolder", ""))
    file = cached_file(
        str(folder),
        FILE,
        _raise_exceptions_for_missing_entries=False,
        **{name: options[name] for name in HUB if name in options},
    )
    return Path(folder) if file is None else Path(file).parent


def concrete(model_class: Any, folder: str | Path, options: dict[str, Any]) -> Any:
    """`model_class`, or the class that an `Auto` class chooses for the folder."""
    if isinstance(model_class, type) and issubclass(model_class, PreTrainedModel):
        return model_class
    from transformers import AutoConfig  # noqa: PLC0415  # only needed for these classes

    config = options.get("config") or folder
    if isinstance(config, (str, Path)):
        chosen = {x: options[x] for x in (*HUB, "trust_remote_code") if x in options}
        config = AutoConfig.from_pretrained(config, **chosen)
    found = model_class._model_mapping[type(config)]
    listed = found if isinstance(found, (list, tuple)) else [found]
    names = {each.__name__: each for each in listed}
    return next((names[x] for x in config.architectures or () if x in names), listed[0])


def state_dict_without_ties(model: Module) -> dict[str, Tensor]:
    """The state_dict, in which buffers of a chain that several modules have are copies.

    transformers leaves out tied Parameters when it saves, and refuses buffers that share memory.
    """
    state: dict[str, Tensor] = model.state_dict()
    seen: set[int] = set()
    for path, chain in paths_of_chains(model):
        if id(chain) in seen:
            for name, _ in chain.named_buffers():
                key = key_in(path, name)
                if key in state:
                    state[key] = state[key].clone()
        seen.add(id(chain))
    return state


def resize_token_embeddings(model: Any, *args: Any, **options: Any) -> Any:
    """`model.resize_token_embeddings(...)`, which keeps the parametrizations of the embeddings.

    The parametrized embeddings are baked, resized by transformers, and parametrized by the same
    maps again: the resized value is assigned, so it satisfies their constraint. The originals are
    new Parameters: make the optimizer afterwards. Called directly, the method of transformers makes
    a plain embedding.

    Returns:
        The input embedding, as transformers does.
    """
    embeddings = [model.get_input_embeddings(), model.get_output_embeddings()]
    chains = paths_of_chains(model)
    resized = {
        id(chain)
        for path, chain in chains
        if any(model.get_submodule(path.rpartition(".")[0]) is each for each in embeddings)
    }
    paths = [path for path, chain in chains if id(chain) in resized]
    if not paths:
        return model.resize_token_embeddings(*args, **options)
    whole = recipe_of(model)
    recipe = {path: whole[path] for path in paths}
    bake(model, *paths)
    rename_ties(model)
    model.resize_token_embeddings(*args, **options)
    for path in paths:  # the former head may still be held, with the same Parameter
        module, _, name = path.rpartition(".")
        old = model.get_parameter(path)
        new = Parameter(old.detach().clone(), old.requires_grad)
        setattr(model.get_submodule(module), name, new)
    model.tie_weights()
    apply_recipe(model, recipe)
    rename_ties(model)
    return model.get_input_embeddings()


class SaveParametrizations(TrainerCallback):  # type: ignore[misc]  # untyped where not installed
    """Writes `parametrizations.json` into each checkpoint that a `Trainer` saves.

    `Trainer` calls `model.save_pretrained` itself. With this callback, `from_pretrained` of this
    file loads its checkpoints. To resume, `Trainer` needs no file: its model is parametrized.

    >>> trainer = Trainer(model, ..., callbacks=[SaveParametrizations()])  # doctest: +SKIP
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        rename_ties(given["model"])
        recipe_of(given["model"])  # so that a map that JSON cannot describe is noticed now

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            save_recipe(recipe_of(given["model"]), folder)
