"""`chain_of`: the chain of a tensor, with its type."""

from __future__ import annotations

from torch.nn import Module

from paramdesc.caching.targets import find_chains
from paramdesc.errors import MissingChainError
from paramdesc.registration.host import check_target
from paramdesc.registration.parametrization_list import ParametrizationList

__all__ = ["chain_of"]


def chain_of(module: Module, tensor_name: str) -> ParametrizationList:
    """Return the `ParametrizationList` of `module.<tensor_name>`, with a static type.

    `module.parametrizations.<tensor_name>` is the same object, but type checkers do not know its
    type.

    Args:
        tensor_name: the name of a parametrized tensor of `module`, or its path, `"0.weight"`.

    Raises:
        ModuleError: a TypeError, if these are not a module and a name.
        NotParametrizedError: a ValueError that suggests similar names.

    >>> layer = register_parametrization(torch.nn.Linear(3, 3), "weight", Symmetric())
    >>> chain = chain_of(layer, "weight")
    >>> chain is layer.parametrizations.weight, chain.original.shape, chain[0]
    (True, torch.Size([3, 3]), Symmetric())
    >>> chain_of(torch.nn.Sequential(layer), "0.weight") is chain
    True
    """
    check_target("chain_of", module, tensor_name)
    path, _, name = tensor_name.rpartition(".")
    try:
        chains = module.get_submodule(path)._modules.get("parametrizations")
    except AttributeError:
        chains = None
    chain = chains._modules.get(name) if chains is not None else None
    if not isinstance(chain, ParametrizationList):
        known = [name for name, _ in find_chains(module, set())]
        raise MissingChainError(f"{type(module).__name__} has", tensor_name, known)
    return chain
