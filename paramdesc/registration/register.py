"""Registering parametrizations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from paramdesc.chain.evaluation import evaluate
from paramdesc.chain.function_map import as_map
from paramdesc.chain.protocols import ParametrizationProto, TensorMap
from paramdesc.chain.states import start_maps
from paramdesc.errors import NonFiniteError, add_note
from paramdesc.registration.adoption import adopt_module
from paramdesc.registration.attribute import ParametrizedTensor
from paramdesc.registration.container import ParametrizationDict
from paramdesc.registration.fitting import check_between, name_of
from paramdesc.registration.gone import note_gone
from paramdesc.registration.host import (
    chains_of,
    check_target,
    find_tensor,
    locate,
    tensors_of,
)
from paramdesc.registration.lazy import register_when_materialized
from paramdesc.registration.namespace import namespace_of
from paramdesc.registration.optimizer_groups import Change, check_optimizer, hand_over, trained_at
from paramdesc.registration.parametrization_list import ParametrizationList
from paramdesc.registration.plain_keys import expect_plain
from paramdesc.registration.questions import is_parametrized
from paramdesc.registration.sharded import refuse_sharded, shard_of, take_shard_along
from paramdesc.registration.sharing import check_shared, is_shared, join
from paramdesc.registration.snapshot import Snapshot, below, tensors_in
from paramdesc.registration.tied import has_other_holders, refuse_overwriting, warn_of_untying
from paramdesc.torch_internals.dynamo import is_dynamo_compiling, uncompiled

__all__ = ["place_chain", "put_on", "register_parametrization"]

M = TypeVar("M", bound=Module)


def register_parametrization(
    module: M,
    tensor_name: str,
    parametrization: ParametrizationProto | TensorMap,
    *,
    unsafe: bool = False,
    right_inverse: Callable[[Tensor], Any] | None = None,
    optimizer: Optimizer | None = None,
) -> M:
    """Make `module.<tensor_name>` equal to `parametrization(original)`, evaluated at each read.

    A second registration on the same name appends its parametrization, which is applied to the
    value of the first. The original is `module.parametrizations.<tensor_name>.original`, the same
    Parameter object as before. If `right_inverse` returns a sequence, the originals are instead new
    Parameters `original0`, `original1`, ..., see `optimizer`. Assigning a tensor,
    `module.<tensor_name> = X`, goes through `right_inverse`.

    Args:
        module: the module with the tensor.
        tensor_name: the name of a parameter or buffer of `module`, or the path of one in a
            submodule, such as `"encoder.0.weight"`. A lazy tensor is parametrized as soon as the
            first call of the module has given it a shape.
        parametrization: an `nn.Module`, or a function from tensor to tensor. A module without
            state, or with Parameters that are meant to be shared, may be registered on several
            tensors.
        unsafe: whether the parametrization may change the dtype and shape of the tensor, without
            checks. By default, the parametrization and its `right_inverse` are called once as a
            test.
        right_inverse: for a plain function, the function that computes the original on assignment.
        optimizer: an existing optimizer that trains the tensor. New Parameters, such as several
            originals and the Parameters of the parametrization, are added to the group of the
            tensor. A replaced Parameter is removed from it, and its state passes to the original
            with the same entries.

    Returns:
        `module`, of the same type.

    Raises:
        ValueError: if `module` has no such tensor, or the map does not fit it; if the map has
            a state that belongs to another tensor; if its `right_inverse` would overwrite a
            tensor that another module holds, or gives NaN.
        RuntimeError: if FSDP manages `module`, unless `fully_shard` has sharded the tensor and it
            becomes the only original, in the same shape.
        TypeError: if `parametrization` is not a map, or `optimizer` is not an optimizer.
        Exception: exceptions raised by the parametrization propagate unchanged. In all cases
            `module` stays as it was.

    >>> linear = torch.nn.Linear(3, 3)
    >>> linear = register_parametrization(linear, "bias", torch.neg, right_inverse=torch.neg)
    >>> linear.bias = torch.tensor([1.0, 2.0, 3.0])
    >>> linear.bias.tolist()
    [1.0, 2.0, 3.0]
    """
    if is_dynamo_compiling():
        return uncompiled(register_parametrization)(
            module,
            tensor_name,
            parametrization,
            unsafe=unsafe,
            right_inverse=right_inverse,
            optimizer=optimizer,
        )
    check_target("register_parametrization", module, tensor_name)
    new = as_map(parametrization, right_inverse)
    return register(module, *locate(module, tensor_name), new, unsafe, optimizer)


def register(
    root: M,
    module: Module,
    tensor_name: str,
    new: Module,
    unsafe: bool,
    optimizer: Optimizer | None,
) -> M:
    """Register `new` on a tensor of `module` itself, which is below `root`. Returns `root`."""
    is_held = has_other_holders(module, tensor_name)  # asked while we hold it nowhere
    if optimizer is not None:
        check_optimizer(optimizer, [module._parameters.get(tensor_name)])
    before = {} if optimizer is None else trained_at(module, tensor_name)
    own = below([new])
    parts = [*below(chains_of(module)), *own]
    snapshot = Snapshot([module, *parts], tensors_of(module, tensor_name), tensors_in(own))
    try:
        put_on(module, tensor_name, new, unsafe, is_held)
        if optimizer is not None:
            hand_over(optimizer, [Change(before, trained_at(module, tensor_name))])
        return root
    except BaseException:
        snapshot.restore()
        raise


def put_on(module: Module, tensor_name: str, new: Module, unsafe: bool, is_held: bool) -> None:
    """Register `new` after the maps of the tensor, as its first map, or as soon as it has a shape.

    To be called under a snapshot of `module`, of its chains, of `new` and of the tensor.

    Args:
        is_held: whether others refer to the tensor, modules perhaps.
    """
    adopt_module(module)
    # the mode of a map that is on another tensor, too, is not ours to change
    if not is_shared(new) and any(x.training is not module.training for x in new.modules()):
        new.train(module.training)
    if is_parametrized(module, tensor_name):
        append_map(module, tensor_name, new, unsafe)
        return
    shard = shard_of(module, tensor_name)
    if is_lazy(find_tensor(module, tensor_name)):
        register_when_materialized(register_parametrization, module, tensor_name, new, unsafe)
    else:
        chain = install_chain(module, tensor_name, new, unsafe, is_held)
        if shard is not None:
            take_shard_along(shard, module, tensor_name, chain)


def install_chain(
    module: Module, tensor_name: str, new: Module, unsafe: bool, is_held: bool
) -> ParametrizationList:
    """Let the tensor be the original of a chain with the one map `new`. Returns the chain."""
    original = find_tensor(module, tensor_name)
    check_shared(new, original, tensor_name)
    host = type(module).__name__
    try:
        chain = ParametrizationList([new], original, unsafe, tensor_name=tensor_name, host=host)
    except Exception as error:
        note = cause(new, original, error)
        if note or not hasattr(error, "__notes__"):
            add_note(
                error,
                f"{note or name_of(new)} was called to register it on {tensor_name!r} of {host}",
            )
        raise
    if not module.training:
        chain.training = False
    if tensor_name in module._non_persistent_buffers_set:
        chain._non_persistent_buffers_set.update(chain._buffers)
    place_chain(module, tensor_name, chain)
    if tensor_name in module._parameters:
        delattr(module, tensor_name)
    module._non_persistent_buffers_set.discard(tensor_name)
    if is_held and chain.is_tensor:
        refuse_overwriting(module, tensor_name, original, chain.original)
    elif is_held:
        warn_of_untying(module, tensor_name, original)
    chain.adopt_original(original)
    start_maps(chain, anew=True)
    if not chain.is_tensor and isinstance(original, Parameter):
        tensor = f"{tensor_name!r} of {type(module).__name__}"
        note_gone(original, tensor, "register_parametrization")
    return chain


def cause(new: Module, original: Tensor, error: Exception) -> str:
    """What of a map has raised `error` or led to it, for a message; empty if that is unknown."""
    if isinstance(error, NonFiniteError):  # its message has it
        return ""
    name = name_of(new)
    try:
        with torch.no_grad():
            result = new.right_inverse(original.detach())  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        result = original  # there is none
    except Exception as raised:
        return f"{name}.right_inverse" if type(raised) is type(error) else ""
    if isinstance(result, Tensor):
        fits = result.shape == original.shape and result.dtype == original.dtype
        return f"{name}.forward" if fits else f"{name}.right_inverse"
    if not isinstance(result, Sequence) or not all(isinstance(x, Tensor) for x in result):
        return f"{name}.right_inverse"
    arguments = ", ".join(f"X{i}" for i in range(len(result)))
    return (
        f"{name}.right_inverse returns {len(result)} tensors, so forward(self, {arguments}) takes "
        "as many: this"
    )


def place_chain(module: Module, tensor_name: str, chain: ParametrizationList) -> None:
    """Let the value of `chain` be `module.<tensor_name>`."""
    chains = module._modules.get("parametrizations")
    if not isinstance(chains, ParametrizationDict):
        chains = make_container(module)
    chains[tensor_name] = chain
    # other threads may read the tensor, so the chain is installed before the tensor is removed
    namespace_of(module).install(ParametrizedTensor(tensor_name, chains._modules))
    expect_plain(module, tensor_name)


def make_container(module: Module) -> ParametrizationDict:
    """`module.parametrizations`, new and empty."""
    holders: tuple[Any, ...] = (vars(module), module._modules, module._parameters, module._buffers)
    name = "parametrizations"
    if any(name in holder for holder in holders) or hasattr(type(module), name):
        raise ValueError(
            f"{type(module).__name__} already has an attribute 'parametrizations', which is the "
            "name where parametrizations are stored. Rename the attribute."
        )
    chains = ParametrizationDict()
    if not module.training:
        chains.training = False
    module.parametrizations = chains
    return chains


def append_map(module: Module, tensor_name: str, new: Module, unsafe: bool) -> None:
    """Add `new` after the maps that are on the tensor."""
    chains: Any = module.parametrizations
    chain: ParametrizationList = chains[tensor_name]
    if is_shared(new):
        with torch.no_grad():
            check_shared(new, evaluate(chain), tensor_name)
    refuse_untrained(module, tensor_name, new)
    if not unsafe:
        check_between(new, getattr(module, tensor_name), tensor_name)
    refuse_untrained(module, tensor_name, new)  # the trial has made them, perhaps
    chain.add_map(new)
    join(chain)
    start_maps(chain, anew=False)
    chain.unsafe = chain.unsafe or unsafe


def refuse_untrained(module: Module, tensor_name: str, new: Module) -> None:
    """Refuse Parameters that FSDP would not know of."""
    if next(new.parameters(), None) is not None:
        refuse_sharded(module, tensor_name, "register a parametrization with Parameters on")
