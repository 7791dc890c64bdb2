"""Adding low-rank adapters to a model, and merging them into its weights."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from paramdesc.chain.states import start_maps
from paramdesc.linalg.differences import largest_difference, largest_entry
from paramdesc.linalg.precision import epsilon
from paramdesc.parametrizations.functions.argument_order import name_first
from paramdesc.parametrizations.spectra.lora import LoRA
from paramdesc.registration.collection import get_parametrizations
from paramdesc.registration.parametrization_list import ParametrizationList
from paramdesc.registration.register import register_parametrization
from paramdesc.registration.remove import remove_parametrizations
from paramdesc.registration.snapshot import Snapshot, below, split_tensors
from paramdesc.registration.tied import is_held_elsewhere

__all__ = ["lora", "merge_lora"]

M = TypeVar("M", bound=Module)


@name_first("rank", "alpha")
def lora(module: M, name: str = "weight", rank: int = 8, alpha: float | None = None) -> M:
    """Freeze `module.<name>`, and add a trainable matrix of rank `rank` to it.

    Appends `LoRA(rank, alpha)` to the parametrizations of the tensor; the weights of convolutions
    are flattened. Everything that was trained for this tensor before, including its original, no
    longer requires a gradient. Create the optimizer afterwards, from the parameters that require
    one.

    Args:
        module: the module that has the tensor.
        name: the name of the tensor, parametrized or not.
        rank: the rank of the added matrix.
        alpha: the scale of the added matrix, times `rank`. By default `rank`, which is a scale of
            one.

    Returns:
        `module`, of the same type.

    Raises:
        ValueError: as in `LoRA` and `register_parametrization`, and for an uninitialized tensor.

    >>> linear = lora(torch.nn.Linear(5, 4, bias=False), rank=2)
    >>> [name for name, x in linear.named_parameters() if x.requires_grad]
    ['parametrizations.weight.0.lora_A', 'parametrizations.weight.0.lora_B']
    """
    tensor = module._parameters.get(name)
    if tensor is not None and is_lazy(tensor):
        raise ValueError(
            f"{name!r} of {type(module).__name__} has no shape yet, but a LoRA needs one. Call "
            "the module once, then lora(module, ...)."
        )
    adapter = LoRA(rank, alpha, flatten=isinstance(module, _ConvNd))
    register_parametrization(module, name, adapter)
    own = set(adapter.parameters())
    for parameter in module.get_submodule(f"parametrizations.{name}").parameters():
        if parameter not in own:
            parameter.requires_grad_(False)
    return module


def merge_lora(module: M) -> M:
    """Merge each `LoRA` in `module` and its submodules into the weight it adapts.

    A weight without other parametrizations becomes plain. Otherwise the others stay, and the
    originals are set through the `right_inverse` of those before the `LoRA`. Tensors that did not
    require a gradient still do not.

    Returns:
        `module`, of the same type.

    Raises:
        ValueError: if the maps before a `LoRA`, such as `Symmetric`, cannot reach its value. Then
            that weight and those after it are unchanged.

    >>> linear = lora(torch.nn.Linear(5, 4), rank=2)
    >>> merge_lora(linear)
    Linear(in_features=5, out_features=4, bias=True)
    """
    for name, chain in get_parametrizations(module).filter(map_type=LoRA).items():
        path, _, tensor_name = name.rpartition(".")
        if all(isinstance(part, LoRA) for part in chain.maps()):
            if is_held_elsewhere(chain, "original"):
                chain.__dict__["is_tied"] = True  # a new Parameter: the other one stays as it is
            remove_parametrizations(module.get_submodule(path), tensor_name)
        else:
            merge_into_chain(name, chain)
    return module


def merge_into_chain(name: str, chain: ParametrizationList) -> None:
    """Remove each `LoRA` from `chain`, and have the maps before it give the same value."""
    snapshot = Snapshot(below([chain]), *split_tensors(chain))
    maps = list(chain.maps())
    try:
        while any(isinstance(part, LoRA) for part in maps):
            position = next(i for i, part in enumerate(maps) if isinstance(part, LoRA))
            before, after = maps[:position], maps[position + 1 :]
            set_maps(chain, maps[: position + 1])
            with torch.no_grad():
                value = chain()
                set_maps(chain, before)
                chain.right_inverse(value)
                check_merged(name, chain(), value)
            maps = before + after
            set_maps(chain, maps)
        start_maps(chain, anew=False)
    except BaseException:
        snapshot.restore()
        raise


def set_maps(chain: ParametrizationList, maps: list[Module]) -> None:
    """Give `chain` these maps, and keep its other submodules."""
    modules: dict[str, Any] = chain._modules
    others = {name: child for name, child in modules.items() if not name.isdigit()}
    modules.clear()
    modules.update({str(i): part for i, part in enumerate(maps)} | others)


def check_merged(name: str, merged: Tensor, value: Tensor) -> None:
    difference = largest_difference(merged, value).item()
    if not difference <= 1000 * epsilon(value) * largest_entry(value).item():
        raise ValueError(
            f"cannot merge the LoRA of {name!r}: the maps before it do not reach its value; the "
            f"nearest value they give differs by {difference:.3g}. Call "
            "paramdesc.remove_parametrizations(module, name), which keeps the value, or "
            "register the LoRA before the other maps."
        )
