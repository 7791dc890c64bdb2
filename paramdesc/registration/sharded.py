"""Rejects changes to modules that FSDP manages, as it addresses parameters by module and name."""

from __future__ import annotations

from typing import Any

from torch.nn import Module

from paramdesc.errors import ShardedModuleError

__all__ = ["refuse_sharded"]


def refuse_sharded(module: Module, tensor_name: str, doing: str) -> None:
    """Refuse to change `tensor_name` if FSDP would put its sharded Parameter back.

    Both versions of FSDP mark the modules that they manage. Buffers are not sharded, and DTensors
    that come from tensor parallelism alone are looked up at each read, like other tensors.

    Raises:
        ShardedModuleError: a RuntimeError, with the order to use.
    """
    if not module.__dict__.get("_is_fsdp_managed_module", False):
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
