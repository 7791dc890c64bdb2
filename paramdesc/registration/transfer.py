"""Letting a module share the maps and originals of another."""

from __future__ import annotations

from typing import Any, TypeVar

from torch.nn import Module, Parameter

from paramdesc.errors import (
    NotParametrizedError,
)
from paramdesc.registration.host import chains_of, tensors_of
from paramdesc.registration.questions import is_parametrized
from paramdesc.registration.register import register_parametrization
from paramdesc.registration.snapshot import Snapshot, below
from paramdesc.torch_internals.dynamo import is_dynamo_compiling, uncompiled

__all__ = ["transfer_parametrizations_and_params"]

M = TypeVar("M", bound=Module)


def transfer_parametrizations_and_params(
    from_module: Module, to_module: M, tensor_name: str | None = None
) -> M:
    """`to_module` will share the maps and originals of `from_module`.

    A tensor that `to_module` lacks is made. Nothing happens if `from_module` is plain.

    Args:
        from_module: where the maps are; it keeps them.
        to_module: where they are registered too.
        tensor_name: one parametrized name; None for all.

    Returns:
        `to_module`, of the same type.

    Raises:
        Exception: as `register_parametrization` does. Then `to_module` is as it was before.
    """
    if is_dynamo_compiling():
        return uncompiled(transfer_parametrizations_and_params)(from_module, to_module, tensor_name)
    if not is_parametrized(from_module):
        return to_module
    if tensor_name is not None and not is_parametrized(from_module, tensor_name):
        raise NotParametrizedError(from_module, tensor_name)
    sources: Any = from_module.parametrizations
    names = list(sources) if tensor_name is None else [tensor_name]
    snapshot = Snapshot(
        [to_module, *below([*chains_of(to_module), sources])],
        [tensor for name in names for tensor in tensors_of(to_module, name)],
    )
    try:
        for name in names:
            transfer_chain(from_module, sources[name], to_module, name)
        return to_module
    except BaseException:
        snapshot.restore()
        raise


def transfer_chain(from_module: Module, source: Any, to_module: Module, tensor_name: str) -> None:
    """Register the maps of `source` on `to_module`, and let it have the same originals."""
    if not hasattr(to_module, tensor_name):
        value = getattr(from_module, tensor_name).detach()
        if source._parameters:
            to_module.register_parameter(tensor_name, Parameter(value))
        else:
            to_module.register_buffer(tensor_name, value)
    for parametrization in [source[i] for i in range(len(source)) if str(i) in source._modules]:
        register_parametrization(to_module, tensor_name, parametrization, unsafe=source.unsafe)
    target: Any = to_module.parametrizations
    for name in source._parameters.keys() | dict(source._buffers.items()).keys():
        setattr(target[tensor_name], name, getattr(source, name))
    transfer_parametrizations_and_params(source, target[tensor_name])  # of the originals
