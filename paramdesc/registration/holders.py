"""Chains that several modules hold: their tensors are tied, and have one value."""

from __future__ import annotations

import gc
from typing import Any

from torch.nn import Module

from paramdesc.registration.container import ParametrizationDict
from paramdesc.registration.parametrization_list import ParametrizationList
from paramdesc.registration.register import place_chain

__all__ = ["count_modules_with", "hold_too", "is_held_by_others"]

FLAG = "is_held_by_several"
"""The attribute of a chain that more than one module has had. The search is done for these only."""


def hold_too(chain: ParametrizationList, module: Module, tensor_name: str) -> None:
    """Let `module.<tensor_name>` be the value of `chain`, which another module has, too."""
    place_chain(module, tensor_name, chain)
    module._parameters.pop(tensor_name, None)
    module._non_persistent_buffers_set.discard(tensor_name)
    chain.__dict__[FLAG] = True


def is_held_by_others(chain: Any, module: Module) -> bool:
    """Whether a module besides `module` has `chain`."""
    if FLAG not in chain.__dict__:
        return False
    if find_container(chain, module):
        gc.collect()  # garbage that is not freed yet must not count
    return find_container(chain, module)


def count_modules_with(chain: Any) -> int:
    """The number of modules that have `chain`, wherever they are."""
    if FLAG not in chain.__dict__:
        return 1
    if len(containers_of(chain)) > 1:
        gc.collect()
    return len(containers_of(chain))


def find_container(chain: Any, besides: Module) -> bool:
    own = besides._modules.get("parametrizations")
    return any(x is not own for x in containers_of(chain))


def containers_of(chain: Any) -> list[Any]:
    return [
        x
        for x in gc.get_objects()
        if type(x) is ParametrizationDict and any(child is chain for child in x._modules.values())
    ]
