"""Saving, loading and unmerging the low-rank adapters of a model."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.errors import CheckpointError
from paramdesc.parametrizations.functions.adapters import lora
from paramdesc.parametrizations.spectra.lora import LoRA
from paramdesc.registration.collection import get_parametrizations
from paramdesc.registration.questions import is_parametrized

__all__ = ["adapter_state_dict", "load_adapters", "unmerge_lora"]

M = TypeVar("M", bound=Module)
ALPHA = "alpha"
FACTOR = re.compile(r"((?:(.*)\.)?parametrizations\.([^.]+)\.\d+)\.lora_A")


def adapter_state_dict(model: Module) -> OrderedDict[str, Tensor]:
    """Return the factors of each `LoRA` in `model`, under the keys of `model.state_dict()`.

    The scale `alpha` of each adapter is in the `_metadata`, which `torch.save` keeps and
    safetensors drops.

    >>> model = torch.nn.Sequential(torch.nn.Linear(5, 4))
    >>> _ = lora(model[0], rank=2)
    >>> list(adapter_state_dict(model))
    ['0.parametrizations.weight.0.lora_A', '0.parametrizations.weight.0.lora_B']
    """
    found: Any = OrderedDict()
    found._metadata = OrderedDict()
    for place, adapter in adapters_of(model).items():
        found._metadata[place] = {ALPHA: adapter.alpha}
        found.update((name, x.detach()) for name, x in factors_of(place, adapter).items())
    return found  # type: ignore[no-any-return]


def load_adapters(model: M, state_dict: Mapping[str, Tensor], strict: bool = True) -> M:
    """Load the adapters that `adapter_state_dict` returned. The rest of `model` is unchanged.

    Args:
        model: a model with the same adapters.
        state_dict: the factors.
        strict: whether the keys must match exactly: every factor of `model`, and nothing else.

    Returns:
        `model`, of the same type.

    Raises:
        CheckpointError: a RuntimeError, if keys are missing or unexpected, shapes differ, or an
            adapter was saved with another `alpha`. In this case nothing is loaded.
    """
    adapters = adapters_of(model)
    own = {name: x for key, y in adapters.items() for name, x in factors_of(key, y).items()}
    problems = []
    if strict:
        unexpected = [name for name in state_dict if name not in own]
        missing = [name for name in own if name not in state_dict]
        problems += [f"unexpected: {', '.join(unexpected)}"] * bool(unexpected)
        problems += [f"missing: {', '.join(missing)}"] * bool(missing)
    shared = {name: x for name, x in state_dict.items() if name in own}
    for name, x in shared.items():
        if x.shape != own[name].shape:
            problems.append(f"{name} has shape {list(x.shape)}, not {list(own[name].shape)}")
    for place, adapter in adapters.items():
        alpha = saved_alpha(state_dict, place)
        if alpha is not None and alpha != adapter.alpha:
            problems.append(f"{place} was saved with alpha={alpha:g}, not {adapter.alpha:g}")
    if problems:
        raise CheckpointError.adapters(problems)
    with torch.no_grad():
        for name, x in shared.items():
            own[name].copy_(x)
    return model


def unmerge_lora(model: M, state_dict: Mapping[str, Tensor], alpha: float | None = None) -> M:
    """Split merged adapters off the weights of `model`: the reverse of `merge_lora`.

    Registers a `LoRA` on each weight that has factors in `state_dict`, loads these factors, and
    sets the original so that the value stays the same. As with `lora`, only the adapters are
    trained.

    Args:
        model: a model into which the adapters were merged.
        state_dict: what `adapter_state_dict` returned before `merge_lora`.
        alpha: the scale of all adapters, if `state_dict` has lost its metadata. By default, the
            scale in the metadata, or the rank if there is none.

    Returns:
        `model`, of the same type.

    Raises:
        CheckpointError: a RuntimeError, if a weight is missing, has another shape, or already has
            an adapter. In this case `model` is unchanged.

    >>> linear = lora(torch.nn.Linear(5, 4), rank=2)
    >>> before, adapters = linear.weight.detach(), adapter_state_dict(linear)
    >>> linear = unmerge_lora(merge_lora(linear), adapters)
    >>> torch.equal(linear.weight, before), list(adapter_state_dict(linear)) == list(adapters)
    (True, True)
    """
    found = []
    for name, A in state_dict.items():
        match = FACTOR.fullmatch(name)
        if match is None:
            continue
        place, path, tensor_name = match.groups()
        B = state_dict.get(f"{place}.lora_B")
        where = f"{path}.{tensor_name}" if path else tensor_name
        weight = find_weight(model, path or "", tensor_name)
        if B is None or weight is None:
            raise CheckpointError.unmerged(where, "has no weight, or no lora_B")
        product = (*A.shape[:-2], B.shape[-2], A.shape[-1])
        if product not in (weight.shape, weight.flatten(1).shape) or A.shape[-2] != B.shape[-1]:
            raise CheckpointError.unmerged(where, f"has shape {list(weight.shape)}")
        if place.removesuffix(".lora_A") in adapters_of(model):
            raise CheckpointError.unmerged(where, "already has an adapter")
        scale = alpha if alpha is not None else saved_alpha(state_dict, place)
        found.append((model.get_submodule(path or ""), tensor_name, (A, B), scale))
    if not found:
        raise CheckpointError.no_adapters()
    for each in found:  # all of them fit
        put_back(*each)
    return model


@torch.no_grad()
def put_back(
    module: Module, tensor_name: str, factors: tuple[Tensor, Tensor], alpha: float | None
) -> None:
    """Register an adapter with these factors on a tensor, which keeps its value."""
    value = getattr(module, tensor_name).detach().clone()
    lora(module, tensor_name, rank=factors[0].shape[-2], alpha=alpha)
    chain: Any = module.get_submodule(f"parametrizations.{tensor_name}")
    adapter = list(chain.maps())[-1]
    adapter.lora_A.copy_(factors[0])
    adapter.lora_B.copy_(factors[1])
    setattr(module, tensor_name, value)


def find_weight(model: Module, path: str, tensor_name: str) -> Tensor | None:
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return None
    if tensor_name not in module._parameters and not is_parametrized(module, tensor_name):
        return None
    found: Tensor = getattr(module, tensor_name)
    return found.detach()


def adapters_of(model: Module) -> dict[str, LoRA]:
    """Each `LoRA` in `model` by its path, including those inside other maps."""
    found: dict[str, LoRA] = {}
    for name, chain in get_parametrizations(model).items():
        path, dot, tensor_name = name.rpartition(".")
        for place, part in chain.named_modules():
            if isinstance(part, LoRA):
                found[f"{path}{dot}parametrizations.{tensor_name}.{place}"] = part
    return found


def factors_of(place: str, adapter: LoRA) -> dict[str, Tensor]:
    return {f"{place}.{name}": x for name, x in adapter.named_parameters(recurse=False)}


def saved_alpha(state_dict: Any, place: str) -> float | None:
    """The scale that an adapter was saved with, if it is known."""
    alpha: float | None = getattr(state_dict, "_metadata", {}).get(place, {}).get(ALPHA)
    return alpha
