"""Changes to modules that FSDP manages, which addresses parameters by module and name.

An original with the shape of its tensor stays the same Parameter, which FSDP2 can be told to find
in the chain. Other changes are rejected.
"""

from __future__ import annotations

from typing import Any

from torch.nn import Module

from paramdesc.errors import ShardedModuleError
from paramdesc.torch_internals.gathered import Gathering, find_gathering

__all__ = ["refuse_sharded", "shard_of", "take_shard_along"]

REGISTERING = "register a parametrization on"


def shard_of(module: Module, tensor_name: str) -> Gathering | None:
    """How FSDP2 shards a plain tensor of `module`. None if no FSDP does.

    Raises:
        ShardedModuleError: a RuntimeError, if the tensor cannot become an original.
    """
    gathering = None
    if is_managed(module):
        gathering = find_gathering(module, tensor_name)
    if gathering is None:
        refuse_sharded(module, tensor_name, REGISTERING)
    elif not gathering.is_sharded_now():
        cause = "and has gathered its parameters now; module.reshard() shards them"
        raise ShardedModuleError(module, tensor_name, REGISTERING, cause)
    elif gathering.is_shared():
        cause = "and shards the tensor of several modules as one"
        raise ShardedModuleError(module, tensor_name, REGISTERING, cause)
    elif not gathering.is_cut_once():
        cause = "and cuts the tensor along the dimension that tensor parallelism has cut"
        raise ShardedModuleError(module, tensor_name, REGISTERING, cause)
    return gathering


def take_shard_along(gathering: Gathering, module: Module, tensor_name: str, chain: Any) -> None:
    """Let FSDP2 find the tensor as the original of `chain`, where it is now.

    Raises:
        ShardedModuleError: a RuntimeError, if there are Parameters that FSDP2 does not know of.
    """
    shard: Any = gathering.shard
    found = list(chain.parameters())
    if len(found) != 1 or not chain.is_tensor or not is_same_form(found[0], shard):
        cause = "and would not shard the new Parameters of the parametrization"
        raise ShardedModuleError(module, tensor_name, REGISTERING, cause)
    for part in chain.modules():  # as fully_shard does it
        part._is_fsdp_managed_module = True
        part._fsdp_use_orig_params = True
    gathering.move(chain, "original")


def is_same_form(original: Any, shard: Any) -> bool:
    return (
        type(original) is type(shard)
        and original.shape == shard.shape
        and original.dtype == shard.dtype
        and original.placements == shard.placements
    )


def is_managed(module: Module) -> bool:
    """Whether a version of FSDP has marked `module` as its own."""
    return bool(module.__dict__.get("_is_fsdp_managed_module", False))


def refuse_sharded(module: Module, tensor_name: str, doing: str) -> None:
    """Refuse to change `tensor_name` if FSDP would put its sharded Parameter back.

    Both versions of FSDP mark the modules that they manage. Buffers are not sharded, and DTensors
    that come from tensor parallelism alone are looked up at each read, like other tensors.

    Raises:
        ShardedModuleError: a RuntimeError, with the order to use.
    """
    if not is_managed(module):
        return
    chains: Any = module._modules.get("parametrizations")
    chain = chains._modules.get(tensor_name) if chains is not None else None
    is_buffer = (
        dict(module._buffers.items()).get(tensor_name) is not None
        if chain is None
        else next(chain.parameters(), None) is None
    )
    if not is_buffer:
        raise ShardedModuleError(module, tensor_name, doing)
