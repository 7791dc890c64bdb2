"""Looking up the chains and plain tensors of a module."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from paramdesc.errors import MissingTensorError, ModuleError

__all__ = ["chains_of", "check_model", "check_target", "find_tensor", "locate", "tensors_of"]


def check_model(function: str, model: object) -> None:
    """Raise an error unless `model`, the first argument of `function`, is a module.

    Raises:
        ModuleError: a TypeError, with the line to write.
    """
    if not isinstance(model, Module):
        raise ModuleError.of_model(function, model)


def check_target(function: str, module: object, tensor_name: object) -> None:
    """Raise an error unless these are a module and a name.

    Raises:
        ModuleError: a TypeError, with the line to write.
    """
    if not isinstance(module, Module):
        raise ModuleError.of_type(function, module)
    if not isinstance(tensor_name, str):
        raise ModuleError.of_name(function, tensor_name)


def locate(module: Module, tensor_name: str) -> tuple[Module, str]:
    """The module that has the tensor, and its name there: `tensor_name` may be a path.

    A tensor of `module` itself with that literal name comes first. What does not lead to a
    submodule is returned as it is.

    >>> locate(torch.nn.Sequential(torch.nn.Linear(3, 2)), "0.weight")
    (Linear(in_features=3, out_features=2, bias=True), 'weight')
    """
    name: object = tensor_name  # users also write other things, which are refused later
    if not isinstance(name, str) or "." not in name or has_own(module, name):
        return module, tensor_name
    path, _, last = tensor_name.rpartition(".")
    try:
        return module.get_submodule(path), last
    except AttributeError:
        return module, tensor_name


def has_own(module: Module, name: str) -> bool:
    """Whether a tensor of `module` has this literal name, parametrized or not."""
    chains = module._modules.get("parametrizations")
    return (
        name in module._parameters
        or name in module._buffers
        or (chains is not None and name in chains._modules)
    )


def chains_of(module: Module) -> list[Module]:
    """A list with `module.parametrizations`, or an empty list."""
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
    """A list with the plain tensor of that name, empty if there is none or it has no data yet."""
    found = (module._parameters.get(tensor_name), dict(module._buffers.items()).get(tensor_name))
    return [tensor for tensor in found if tensor is not None and not is_lazy(tensor)]
