"""Loads the value of a parametrized tensor from a checkpoint that does not store its originals."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.__future__ import get_swap_module_params_on_conversion

from paramdesc.chain.evaluation import evaluate
from paramdesc.chain.layouts import plain_value
from paramdesc.chain.map_names import map_names
from paramdesc.errors import CheckpointError
from paramdesc.registration.assignment import assign
from paramdesc.registration.plain_keys import Given
from paramdesc.registration.snapshot import Snapshot, below, split_tensors
from paramdesc.torch_internals.shards import cut_like

__all__ = ["load_given"]


def load_given(
    chain: Any, given: Given, state_dict: Any, prefix: str, replace: bool, errors: list[str]
) -> None:
    """Assign to `chain` what a checkpoint stores for its tensor.

    What is below the chain and not in the checkpoint is added to `state_dict` as it is, so that it
    is not reported as missing.

    Args:
        replace: whether the originals become new tensors, of the dtype and on the device of the
            checkpoint, as with `load_state_dict(..., assign=True)`.
        errors: where to add messages. Then nothing has changed.
    """
    key = given.stored.keys.get("value", given.stored.path)
    tensors = dict(given.tensors)
    others = [
        f'While copying the parameter named "{given.stored.keys[role]}", expected torch.Tensor or '
        f"Tensor-like object from checkpoint but received {type(x)}"
        for role, x in tensors.items()
        if not isinstance(x, Tensor)
    ]
    if others:
        errors.extend(others)
    else:
        snapshot = None if is_like_original(chain) else snapshot_of(chain)
        try:
            load_value(chain, given, key, replace)
        except Exception as error:
            if snapshot is not None:
                snapshot.restore()
            if not isinstance(error, CheckpointError):
                originals = [f"{prefix}{name}" for name in chain.original_names()]
                error = CheckpointError.refused(key, originals, map_names(chain), error)
            errors.append(str(error))
    # with keep_vars, weak references to the states are kept, and torch could not swap them
    is_swapped = get_swap_module_params_on_conversion()
    for name, x in chain.state_dict(keep_vars=not is_swapped).items():
        state_dict.setdefault(f"{prefix}{name}", x)


def load_value(chain: Any, given: Given, key: str, replace: bool) -> None:
    """Assign the value, if its shape is that of the tensor."""
    tensors = {role: x.detach() for role, x in given.tensors.items()}
    with torch.no_grad():
        value = plain_value(given.stored, tensors)
    like = chain.original if is_like_original(chain) else evaluate_like(chain)
    if value.shape != like.shape:
        raise CheckpointError.shape(key, value.shape, like.shape)
    if like.is_meta and not value.is_meta and not replace:
        warnings.warn(
            f"for {key}: copying from a non-meta parameter in the checkpoint to a meta parameter "
            "in the current model, which is a no-op. Pass assign=True to load_state_dict.",
            stacklevel=8,
        )
        return
    if not replace:
        value = cut_like(value.to(like.device), like)
        value = torch.empty_like(like).copy_(value)  # in the memory format of the model
    assign(chain, value, replace=replace)


def is_like_original(chain: Any) -> bool:
    """Whether the value of `chain` is known to have the shape and dtype of its one original."""
    return chain.is_tensor and not chain.unsafe


@torch.no_grad()
def evaluate_like(chain: Any) -> Tensor:
    value: Tensor = evaluate(chain)
    return value


def snapshot_of(chain: Any) -> Snapshot:
    return Snapshot(below([chain]), *split_tensors(chain))
