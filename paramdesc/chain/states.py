"""The states of maps with a warm start: given, moved, saved and loaded."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.chain.bases import base_names, count_anew, steps_of, watch_base
from paramdesc.chain.map_names import MAPS, are_alike, map_names
from paramdesc.chain.saved import is_overwritten
from paramdesc.chain.shards import apply_sharded, are_sharded
from paramdesc.chain.steps import count_steps, has_stepped, is_step_pending, mark_due
from paramdesc.chain.warm import warm_maps
from paramdesc.torch_internals.tensors import shares_storage

__all__ = ["count_loaded", "find_what_loads", "follow_steps", "save_pending", "start_maps"]


def start_maps(chain: Any, *, anew: bool) -> None:
    """Give the maps in `chain` a first state, if they have none. With `anew`, all get a new one.

    This takes an evaluation: only then is it known what a map inside another map is applied to.
    """
    watch_base(chain)
    if anew:
        count_anew(chain)
    warm = warm_maps(chain)
    if not warm:
        return
    if "_steps" not in chain.__dict__:
        chain.register_load_state_dict_post_hook(count_loaded)
    is_due = not anew and "_steps" in chain.__dict__ and is_step_pending(chain)
    count_steps(chain)
    chain.__dict__.pop("_stepped", None)
    if is_due:
        chain.__dict__["_stepped"] = True
    for parametrization in warm.values():
        parametrization.is_led, parametrization.is_due = True, False
        if anew:
            parametrization.lose_state()
    apply_maps(chain)


def follow_steps(chain: Any) -> None:
    """Move the states of the maps in `chain`, if a training step was made."""
    if chain.training and "_steps" in chain.__dict__ and has_stepped(chain):
        mark_due(chain)
        apply_maps(chain)


@torch.inference_mode(False)
@torch.no_grad()
def apply_maps(chain: Any) -> None:
    """Evaluate `chain`, to create or move the states of its maps."""
    values: tuple[Any, ...] = chain.originals()
    if are_sharded(values):
        apply_sharded(chain, values)
        return
    for parametrization in chain.maps():
        values = (parametrization(*values),)


# A state_dict holds the states of the maps, and their base points. Its metadata says whether a step
# is pending that the states have not followed, and how many steps were made since the base point
# was given. So a resumed run moves them when the uninterrupted run does.

PENDING = "paramdesc.step_pending"
COUNT = "paramdesc.steps"


def save_pending(chain: Module, destination: Any, prefix: str) -> None:
    """Store pending steps, the number of steps, and the names of the maps in the metadata."""
    metadata = getattr(destination, "_metadata", {}).get(prefix[:-1])
    if metadata is None:
        return
    metadata[MAPS] = map_names(chain)
    if chain.__dict__.get("_steps") is not None:
        metadata[PENDING] = is_step_pending(chain)
    if steps_of(chain) is not None:
        metadata[COUNT] = steps_of(chain)


def state_keys(chain: Module, prefix: str) -> list[str]:
    """The keys of a state_dict under which the states of the maps in `chain` are stored."""
    return [
        f"{prefix}{place}.{name}"
        for place, parametrization in warm_maps(chain).items()
        for name in parametrization.warm_start
    ]


def find_what_loads(chain: Any, state_dict: Any, prefix: str, metadata: Any) -> None:
    """Inspect what is about to be loaded into `chain`, for `count_loaded`.

    Without metadata, a step counts as pending: most programs save after `optimizer.step()`, and
    under `torch.nn.utils.parametrize` states move at each evaluation anyway.
    """
    own = {**chain._parameters, **chain._buffers}
    originals = {
        name: state_dict[f"{prefix}{name}"] for name in own if f"{prefix}{name}" in state_dict
    }
    if originals:
        warn_of_other_maps(chain, metadata)
        warn_of_missing_base(chain, state_dict, prefix)
        if COUNT in metadata:
            count_anew(chain, metadata[COUNT])
    if "_steps" not in chain.__dict__:
        return
    states = [state_dict.get(key) for key in state_keys(chain, prefix)]
    if any(is_same_memory(tensor, own[name]) for name, tensor in originals.items()):
        is_pending = is_step_pending(chain)  # a state_dict of the chain itself: nothing changes
    elif any(is_overwritten(state) for state in states):
        is_pending = True
    else:
        is_pending = metadata.get(PENDING, True)
    chain.__dict__["_loading"] = {
        "originals": bool(originals),
        "states": all(state is not None for state in states),
        "pending": is_pending,
    }


def warn_of_other_maps(chain: Any, metadata: Any) -> None:
    """Warn if the originals belong to other maps: they fit, and give another value."""
    stored, present = metadata.get(MAPS), map_names(chain)
    if stored is not None and not are_alike(stored, present):
        warnings.warn(
            f"the checkpoint stores the original of {chain.tensor_name!r} of {chain.host} for "
            f"{', '.join(stored)}, but it is loaded into {', '.join(present)}, so the weight "
            "will differ from the saved one. Load the checkpoint into a model with its own "
            "parametrizations, and then the paramdesc.plain_state_dict(...) of that model into "
            "this one.",
            stacklevel=2,
        )


def warn_of_missing_base(chain: Any, state_dict: Any, prefix: str) -> None:
    """Warn if originals are loaded without the base point that they belong to."""
    if not steps_of(chain):
        return  # it is where it was when the map was registered
    for name in base_names(chain):
        if f"{prefix}{name}" not in state_dict:
            warnings.warn(
                f"the original of {chain.tensor_name!r} of {chain.host} is loaded without its base "
                f"point {name!r}, which moves during training, so the weight will differ from the "
                "saved one. Load the base point from the same state_dict.",
                stacklevel=2,
            )


def is_same_memory(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and shares_storage(a, b)


def count_loaded(chain: Any, incompatible_keys: Any) -> None:
    """Do not count the loading of a state_dict as a step.

    Originals that are loaded without their states get new ones. A hook that runs after `chain` and
    its maps were loaded.
    """
    loaded = chain.__dict__.pop("_loading", None)
    if loaded is None or not loaded["originals"]:
        count_steps(chain)
    elif loaded["states"]:
        count_steps(chain)
        chain.__dict__["_stepped"] = loaded["pending"]
    else:
        with suppress(Exception):  # an exception in a map is raised again at the next evaluation
            start_maps(chain, anew=True)
