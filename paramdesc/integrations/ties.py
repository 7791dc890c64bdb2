"""The names of tied tensors in models of transformers, whose originals are tied if parametrized."""

from __future__ import annotations

from typing import Any, TypeVar

from torch.nn import Module
from transformers import PreTrainedModel

from paramdesc.integrations.recipes import paths_of_chains
from paramdesc.models.tying import tie_weights

__all__ = ["keep_ties", "key_in", "rename_ties"]

M = TypeVar("M", bound=Module)


def keep_ties(model: M) -> M:
    """Let transformers tie the originals of tied tensors, and not their values.

    `tie_weights` of transformers assigns one tensor to the other, by the names in the class. This
    renames the pairs of this model that are parametrized together. If transformers would tie two
    tensors of which one is parametrized, they are tied first. Called after `paramdesc.bake`, it
    gives the plain pairs their names back.

    Call it in the last line of `__init__` of a model class that registers on tied embeddings.
    `save_pretrained`, `from_pretrained`, `resize_token_embeddings` and `SaveParametrizations` of
    paramdesc.integrations.transformers rename the pairs themselves.

    Returns:
        `model`.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            tie_as_configured(module)
    rename_ties(model)
    return model


def tie_as_configured(model: Any) -> None:
    """Tie the tensors that transformers would tie after loading, if one of them is parametrized."""
    pairs = getattr(model, "all_tied_weights_keys", None) or {}
    if not pairs:
        return
    chains = dict(paths_of_chains(model))
    for target, source in pairs.items():
        if (target in chains) is not (source in chains):
            kept, other = (source, target) if source in chains else (target, source)
            if has_tensor(model, other):
                tie_weights(model, kept, other)


def has_tensor(model: Module, path: str) -> bool:
    module, _, name = path.rpartition(".")
    try:
        found = vars(model.get_submodule(module))
    except AttributeError:
        return False
    return name in found["_parameters"] or name in found["_buffers"]


def rename_ties(model: Module) -> None:
    """Name the originals of pairs that are parametrized together, and the values of plain pairs."""
    chains = dict(paths_of_chains(model))
    for path, module in model.named_modules():
        if not isinstance(module, PreTrainedModel):
            continue
        untyped: Any = module
        for attribute in ("_tied_weights_keys", "all_tied_weights_keys"):
            pairs = getattr(module, attribute, None)
            if isinstance(pairs, dict):
                renamed = renamed_pairs(untyped, pairs, f"{path}." if path else "", chains)
                if renamed != pairs:
                    setattr(untyped, attribute, renamed)


def renamed_pairs(
    module: Module, pairs: dict[str, str], prefix: str, chains: dict[str, Any]
) -> dict[str, str]:
    renamed: dict[str, str] = {}
    for target, source in pairs.items():
        plain = plain_path(target), plain_path(source)
        first, second = (chains.get(prefix + path) for path in plain)
        if first is not None and first is second:
            chain: Any = first
            for name, _ in chain.named_parameters():
                renamed[key_in(plain[0], name)] = key_in(plain[1], name)
        elif not (has_tensor(module, target) and has_tensor(module, source)):  # baked since then
            renamed[plain[0]] = plain[1]
        else:
            renamed[target] = source
    return renamed


def plain_path(key: str) -> str:
    """The path of the tensor whose chain has the tensor at `key`; any other key unchanged."""
    module, found, rest = f".{key}".partition(".parametrizations.")
    return f"{module}.{rest.partition('.')[0]}".removeprefix(".") if found else key


def key_in(path: str, name: str) -> str:
    """The key of the tensor `name` of the chain at `path`."""
    module, _, tensor = path.rpartition(".")
    return f"{module}.parametrizations.{tensor}.{name}".removeprefix(".")
