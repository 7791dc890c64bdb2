"""Sharing the maps and originals of one module with another."""

from __future__ import annotations

from typing import Any, TypeVar

from torch.nn import Module

from paramdesc.chain.states import start_maps
from paramdesc.errors import (
    NotParametrizedError,
)
from paramdesc.registration.adoption import adopt_module
from paramdesc.registration.host import chains_of, find_tensor, tensors_of
from paramdesc.registration.parametrization_list import ParametrizationList
from paramdesc.registration.questions import is_parametrized
from paramdesc.registration.register import place_chain, register_parametrization
from paramdesc.registration.sharded import refuse_sharded
from paramdesc.registration.snapshot import Snapshot, below, split_tensors
from paramdesc.torch_internals.dynamo import is_dynamo_compiling, uncompiled

__all__ = ["transfer_parametrizations_and_params"]

M = TypeVar("M", bound=Module)


def transfer_parametrizations_and_params(
    from_module: Module, to_module: M, tensor_name: str | None = None
) -> M:
    """Make `to_module` share the parametrizations and originals of `from_module`.

    Tensors that `to_module` lacks are created. This is a no-op if `from_module` is not
    parametrized. `from_module` is not changed. Afterwards, an assignment to one module changes
    both, and `remove_parametrizations` on one module leaves the other as it is.

    Args:
        from_module: the module with the parametrizations, which it keeps.
        to_module: the module that shares them.
        tensor_name: the name of a parametrized tensor; None for all.

    Returns:
        `to_module`, of the same type.

    Raises:
        Exception: as in `register_parametrization`. In all cases `to_module` stays as it was.
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
        [tensor for name in names for tensor in split_tensors(sources[name])[1]],
    )
    try:
        adopt_module(to_module)
        for name in names:
            refuse_sharded(to_module, name, "transfer parametrizations to")
            if is_parametrized(to_module, name):
                add_to_chain(sources[name], to_module, name)
            else:
                share_chain(sources[name], to_module, name)
        return to_module
    except BaseException:
        snapshot.restore()
        raise


def share_chain(source: Any, to_module: Module, tensor_name: str) -> None:
    """Give `to_module` a chain with the same map and original objects as `source`.

    They fit each other, so nothing is evaluated or written.
    """
    chain = ParametrizationList.sharing(source, tensor_name, type(to_module).__name__)
    chain.training = to_module.training
    plain = tensors_of(to_module, tensor_name)
    if plain and tensor_name not in to_module._parameters:
        is_temporary = tensor_name in to_module._non_persistent_buffers_set
        chain._non_persistent_buffers_set.clear()
        chain._non_persistent_buffers_set.update(chain._buffers if is_temporary else ())
    if hasattr(to_module, tensor_name):
        find_tensor(to_module, tensor_name)  # raises if this is not a tensor
    place_chain(to_module, tensor_name, chain)
    if tensor_name in to_module._parameters:
        delattr(to_module, tensor_name)
    to_module._non_persistent_buffers_set.discard(tensor_name)
    if is_parametrized(source):  # originals that are parametrized themselves
        for name, inner in source.parametrizations.items():
            share_chain(inner, chain, name)
    start_maps(chain, anew=False)


def add_to_chain(source: Any, to_module: Module, tensor_name: str) -> None:
    """Append the maps of `source` to the chain of `to_module`, and share its originals."""
    for parametrization in [source[i] for i in range(len(source)) if str(i) in source._modules]:
        register_parametrization(to_module, tensor_name, parametrization, unsafe=source.unsafe)
    target: Any = to_module.parametrizations
    for name in source._parameters.keys() | dict(source._buffers.items()).keys():
        setattr(target[tensor_name], name, getattr(source, name))
    transfer_parametrizations_and_params(source, target[tensor_name])  # for parametrized originals
