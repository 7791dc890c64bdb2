"""Looking up the chains and plain tensors of a module."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from paramdesc.errors import MissingTensorError

__all__ = ["chains_of", "find_tensor", "tensors_of"]


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
