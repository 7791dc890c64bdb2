"""Removing parametrizations."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import Optimizer

from paramdesc.caching.active import forget
from paramdesc.chain.evaluation import evaluate
from paramdesc.chain.warm import warm_maps
from paramdesc.errors import (
    NotParametrizedError,
    SeveralOriginalsError,
)
from paramdesc.registration.adoption import adopt_module
from paramdesc.registration.gone import note_gone
from paramdesc.registration.holders import is_held_by_others
from paramdesc.registration.host import chains_of, check_target, locate
from paramdesc.registration.lazy import cancel_pending
from paramdesc.registration.namespace import give_back, namespace_of
from paramdesc.registration.optimizer_groups import Change, check_optimizer, hand_over, trained_at
from paramdesc.registration.parametrization_list import ParametrizationList
from paramdesc.registration.questions import is_parametrized
from paramdesc.registration.sharded import refuse_sharded
from paramdesc.registration.sharing import is_shared, leave, shares_original
from paramdesc.registration.snapshot import Snapshot, below, split_tensors
from paramdesc.torch_internals.dynamo import is_dynamo_compiling, uncompiled
from paramdesc.torch_internals.replacing import replace_data
from paramdesc.torch_internals.tensors import alias

__all__ = ["remove_parametrizations"]

M = TypeVar("M", bound=Module)


def remove_parametrizations(
    module: M,
    tensor_name: str,
    leave_parametrized: bool = True,
    *,
    optimizer: Optimizer | None = None,
) -> M:
    """Turn `module.<tensor_name>` back into a plain parameter or buffer.

    Args:
        module: the module with the tensor.
        tensor_name: the name or path of a parametrized tensor, such as `"encoder.0.weight"`.
        leave_parametrized: whether the tensor keeps its current value. If False, it gets the value
            of the original; this is not possible with several originals. The Parameter object is
            that of the original, unless another tensor shares it (`tie`, `tie_weights`,
            `transfer_parametrizations_and_params`) or there are several originals; then it is a new
            one.
        optimizer: an existing optimizer that trains the tensor. A new Parameter is added to the
            group of the originals; unused originals and the Parameters of the parametrizations are
            removed from their groups.

    Returns:
        `module`, of the same type.

    Raises:
        ValueError: if the tensor is not parametrized, or has several originals and
            `leave_parametrized` is False.
        Exception: exceptions raised by the parametrizations propagate unchanged. In all cases
            `module` stays as it was.
    """
    if is_dynamo_compiling():
        return uncompiled(remove_parametrizations)(
            module, tensor_name, leave_parametrized, optimizer=optimizer
        )
    check_target("remove_parametrizations", module, tensor_name)
    owner, own_name = locate(module, tensor_name)
    if cancel_pending(owner, own_name):
        return module
    if not is_parametrized(owner, own_name):
        raise NotParametrizedError(module, tensor_name)
    return remove(module, owner, own_name, leave_parametrized, optimizer)


def remove(
    root: M,
    module: Module,
    tensor_name: str,
    leave_parametrized: bool,
    optimizer: Optimizer | None,
) -> M:
    """Remove the maps of a tensor of `module` itself, which is at or below `root`.

    Returns `root`.
    """
    if optimizer is not None:
        check_optimizer(optimizer)
    before = trained_at(module, tensor_name)
    refuse_sharded(module, tensor_name, "remove the parametrization of")
    replaced, written = split_tensors(module.get_submodule(f"parametrizations.{tensor_name}"))
    snapshot = Snapshot([module, *below(chains_of(module))], replaced, written)
    try:
        adopt_module(module)
        chains: Any = module.parametrizations
        chain: ParametrizationList = chains[tensor_name]
        is_held = is_held_by_others(chain, module)
        tensor = tensor_to_leave(tensor_name, chain, leave_parametrized, is_held)
        for parametrization in warm_maps(chain).values():
            parametrization.is_led = is_held or is_shared(parametrization, chain)
        persistent = not chain._non_persistent_buffers_set
        attribute = namespace_of(module).attribute(tensor_name)
        give_back(module, tensor_name, tensor)
        if isinstance(tensor, Parameter):
            module.register_parameter(tensor_name, tensor)
        else:
            module.register_buffer(tensor_name, tensor, persistent=persistent)
        if len(chains) == 1:
            delattr(module, "parametrizations")
        attribute.chains = {tensor_name: chain}  # for a thread that is reading it
        del chains._modules[tensor_name]
        if optimizer is not None:
            parts = [] if is_held else below([chain])
            dead = [part for part in parts if not is_shared(part, chain)]
            hand_over(optimizer, [Change(before, trained_at(module, tensor_name))], dead)
        if not is_held:
            note_all_gone(module, tensor_name, chain)
            leave(chain)
        return root
    except BaseException:
        snapshot.restore()
        raise


def note_all_gone(module: Module, tensor_name: str, chain: ParametrizationList) -> None:
    """Note that no module has the several originals of `chain` any more."""
    for x in () if chain.is_tensor else chain.parameters(recurse=False):
        tensor = f"{tensor_name!r} of {type(module).__name__}"
        note_gone(x, tensor, "remove_parametrizations")


def tensor_to_leave(
    tensor_name: str, chain: ParametrizationList, leave_parametrized: bool, is_held: bool
) -> Tensor:
    """The tensor that will take the place of the parametrized tensor.

    Args:
        is_held: whether another module goes on with `chain`, which then stays as it is.
    """
    if not is_held:
        for name in filter(lambda name: is_parametrized(chain, name), chain.original_names()):
            remove_parametrizations(chain, name)
    if not chain.is_tensor:
        if not leave_parametrized:
            raise SeveralOriginalsError(tensor_name, chain.ntensors)
        value = evaluate_detached(chain)
        trained = [x for x in chain.originals() if isinstance(x, Parameter)]
        needs_gradient = any(x.requires_grad for x in trained)
        return Parameter(value, needs_gradient) if trained else value
    original: Tensor = chain.original
    if is_held or "is_tied" in chain.__dict__ or shares_original(chain):  # another tensor keeps it
        value = evaluate_detached(chain) if leave_parametrized else original.detach()
        is_trained = isinstance(original, Parameter)
        return Parameter(value.clone(), original.requires_grad) if is_trained else value.clone()
    if leave_parametrized:
        value = evaluate_detached(chain)
        # another thread that reads the chain still finds the old original
        holder: Any = chain._parameters if "original" in chain._parameters else chain._buffers
        holder["original"] = alias(original)
        replace_data(original, value)
    return original


@torch.no_grad()
def evaluate_detached(chain: ParametrizationList) -> Tensor:
    """A last value of `chain`. Drops kept values first: their graphs would hold the originals."""
    forget(chain)
    value: Tensor = evaluate(chain)
    return value
