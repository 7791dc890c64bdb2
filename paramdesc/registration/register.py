"""Registering maps on a module's tensors, asking for them, and taking them away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.parameter import is_lazy

from paramdesc.cache.scopes import forget
from paramdesc.chain.evaluation import evaluate
from paramdesc.chain.function_map import as_map
from paramdesc.chain.protocols import ParametrizationProto, TensorMap
from paramdesc.chain.steps import start_maps, warm_maps
from paramdesc.errors import (
    MissingTensorError,
    NotParametrizedError,
    SeveralOriginalsError,
)
from paramdesc.registration.adoption import adopt_module
from paramdesc.registration.attribute import ParametrizedTensor
from paramdesc.registration.container import ParametrizationDict
from paramdesc.registration.fitting import check_between
from paramdesc.registration.lazy import cancel_pending, register_when_materialized
from paramdesc.registration.namespace import namespace_of, release_namespace
from paramdesc.registration.parametrization_list import ParametrizationList
from paramdesc.registration.snapshot import Snapshot, below
from paramdesc.torch_internals.dynamo import is_dynamo_compiling, uncompiled
from paramdesc.torch_internals.engine import is_torch_parametrized
from paramdesc.torch_internals.tensors import replace_data

__all__ = [
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]

M = TypeVar("M", bound=Module)


def register_parametrization(
    module: M,
    tensor_name: str,
    parametrization: ParametrizationProto | TensorMap,
    *,
    unsafe: bool = False,
    right_inverse: Callable[[Tensor], Any] | None = None,
) -> M:
    """`module.<tensor_name>` will be `parametrization(original)`, evaluated at each read.

    A second registration on the same name adds a map after those that are there. The
    original is `module.parametrizations.<tensor_name>.original`, the same Parameter object
    as before, unless the map's `right_inverse` returns a sequence: then the originals are
    `original0`, `original1`, ..., new Parameters that an existing optimizer must be given.
    Assigning a tensor, `module.<tensor_name> = X`, goes through `right_inverse`.

    Args:
        module: where the tensor is.
        tensor_name: a parameter or buffer of `module` itself. One that is not initialised yet
            is parametrized as soon as the module's first call has given it a shape.
        parametrization: an `nn.Module`, or a function from tensor to tensor.
        unsafe: whether the map may change the tensor's dtype and shape. Then nothing is
            checked. By default the map and its `right_inverse` are tried once.
        right_inverse: for a plain function, the function that assignment goes through.

    Returns:
        `module`, of the same type.

    Raises:
        ValueError: if `module` has no such tensor, or the map does not fit it.
        TypeError: if `parametrization` is not a map.
        Exception: whatever the map raises. In every case `module` is as it was before.

    >>> linear = torch.nn.Linear(3, 3)
    >>> linear = register_parametrization(linear, "bias", torch.neg, right_inverse=torch.neg)
    >>> linear.bias = torch.tensor([1.0, 2.0, 3.0])
    >>> linear.bias.tolist()
    [1.0, 2.0, 3.0]
    """
    if is_dynamo_compiling():
        return uncompiled(register_parametrization)(
            module, tensor_name, parametrization, unsafe=unsafe, right_inverse=right_inverse
        )
    new = as_map(parametrization, right_inverse)
    parts = below([*chains_of(module), new])
    snapshot = Snapshot([module, *parts], tensors_of(module, tensor_name))
    try:
        adopt_module(module)
        if any(part.training is not module.training for part in parts):
            new.train(module.training)
        if is_parametrized(module, tensor_name):
            append_map(module, tensor_name, new, unsafe)
        elif is_lazy(find_tensor(module, tensor_name)):
            register_when_materialized(register_parametrization, module, tensor_name, new, unsafe)
        else:
            install_chain(module, tensor_name, new, unsafe)
        return module
    except BaseException:
        snapshot.restore()
        raise


def chains_of(module: Module) -> list[Module]:
    """`module.parametrizations`, if it has one, in a list."""
    chains = module._modules.get("parametrizations")
    return [] if chains is None else [chains]


def find_tensor(module: Module, tensor_name: str) -> Tensor:
    """The parameter or buffer of that name."""
    tensor: Tensor | None = module._parameters.get(tensor_name)
    if tensor is None:
        tensor = module._buffers.get(tensor_name)
    if tensor is None:
        raise MissingTensorError(module, tensor_name)
    return tensor


def tensors_of(module: Module, tensor_name: str) -> list[Tensor]:
    """The plain tensor of that name that has data, if there is one, in a list."""
    found = (module._parameters.get(tensor_name), dict(module._buffers.items()).get(tensor_name))
    return [tensor for tensor in found if tensor is not None and not is_lazy(tensor)]


def install_chain(module: Module, tensor_name: str, new: Module, unsafe: bool) -> None:
    """Let the tensor be the original of a chain with the one map `new`."""
    original = find_tensor(module, tensor_name)
    chain = ParametrizationList(
        [new], original, unsafe, tensor_name=tensor_name, host=type(module).__name__
    )
    if not module.training:
        chain.training = False
    if tensor_name in module._non_persistent_buffers_set:
        chain._non_persistent_buffers_set.update(chain._buffers)
    delattr(module, tensor_name)
    chains = module._modules.get("parametrizations")
    if not isinstance(chains, ParametrizationDict):
        chains = make_container(module)
    chains[tensor_name] = chain
    namespace_of(module).install(ParametrizedTensor(tensor_name, chains._modules))
    chain.adopt_original(original)
    start_maps(chain, anew=True)


def make_container(module: Module) -> ParametrizationDict:
    """`module.parametrizations`, new and empty."""
    holders: tuple[Any, ...] = (vars(module), module._modules, module._parameters, module._buffers)
    name = "parametrizations"
    if any(name in holder for holder in holders) or hasattr(type(module), name):
        raise ValueError(
            f"{type(module).__name__} has an attribute 'parametrizations' of its own, and that "
            "name is where the maps go. Rename the attribute."
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
    if not unsafe:
        check_between(new, getattr(module, tensor_name), tensor_name)
    chain.add_map(new)
    start_maps(chain, anew=False)
    chain.unsafe = chain.unsafe or unsafe


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether `module` has a map on `tensor_name`, or on any tensor if that is None.

    By paramdesc or by torch's own engine.
    """
    chains = module.__dict__.get("_modules", {}).get("parametrizations")
    if not isinstance(chains, torch.nn.ModuleDict):
        return False
    return len(chains) > 0 if tensor_name is None else tensor_name in chains


def type_before_parametrizations(module: Module) -> type[Module]:
    """The class of `module`: `type(module)`, except where torch's engine has changed it."""
    cls = type(module)
    return cls.__bases__[0] if is_torch_parametrized(module) else cls


def remove_parametrizations(module: M, tensor_name: str, leave_parametrized: bool = True) -> M:
    """`module.<tensor_name>` will be a plain parameter or buffer again.

    Args:
        module: where the tensor is.
        tensor_name: a parametrized name.
        leave_parametrized: whether it keeps the value that it has now. If not, it gets the
            value of the original. The Parameter object is the original's in both cases,
            unless there are several: then it is a new one, and False is refused.

    Returns:
        `module`, of the same type.

    Raises:
        ValueError: if the name is not parametrized, or there is no one original to go back to.
        Exception: whatever the maps raise. In every case `module` is as it was before.
    """
    if is_dynamo_compiling():
        return uncompiled(remove_parametrizations)(module, tensor_name, leave_parametrized)
    if cancel_pending(module, tensor_name):
        return module
    if not is_parametrized(module, tensor_name):
        raise NotParametrizedError(module, tensor_name)
    owned = module.get_submodule(f"parametrizations.{tensor_name}")
    snapshot = Snapshot(
        [module, *below(chains_of(module))], [*owned.parameters(), *owned.buffers()]
    )
    try:
        adopt_module(module)
        chains: Any = module.parametrizations
        chain: ParametrizationList = chains[tensor_name]
        tensor = tensor_to_leave(module, tensor_name, chain, leave_parametrized)
        for parametrization in warm_maps(chain).values():
            parametrization.is_led = False
        persistent = not chain._non_persistent_buffers_set
        del chains[tensor_name]
        namespace_of(module).uninstall(tensor_name)
        if isinstance(tensor, Parameter):
            module.register_parameter(tensor_name, tensor)
        else:
            module.register_buffer(tensor_name, tensor, persistent=persistent)
        if len(chains) == 0:
            delattr(module, "parametrizations")
            release_namespace(module)
        return module
    except BaseException:
        snapshot.restore()
        raise


def tensor_to_leave(
    module: Module, tensor_name: str, chain: ParametrizationList, leave_parametrized: bool
) -> Tensor:
    """The tensor that will stand where the chain's value stood."""
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
    if "is_tied" in chain.__dict__:  # it is another tensor's Parameter, which keeps it
        value = evaluate_detached(chain) if leave_parametrized else original.detach().clone()
        return Parameter(value.clone(), original.requires_grad)
    if leave_parametrized:
        replace_data(original, evaluate_detached(chain))
    return original


@torch.no_grad()
def evaluate_detached(chain: ParametrizationList) -> Tensor:
    """A last value of `chain`, when no scope keeps one: its graph would hold the originals."""
    forget(chain)
    value: Tensor = evaluate(chain)
    return value


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
