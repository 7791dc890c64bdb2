"""Lending a tensor to a parametrized name, as `torch.func.functional_call` does.

torch swaps each tensor in, and back after the call, by one function that reads the old one
and assigns the new one. On a parametrized name that would evaluate the maps and overwrite
the originals. So the function is replaced, with the first namespace: there the descriptor
itself is swapped, the lent tensor *is* the weight, and nothing is evaluated. All else is left
to torch's own.

To recognise torch's function on the stack, as it is done elsewhere, would need no change to
torch, and every read of a parametrized tensor would pay for it: 0.2 plain reads.
"""

from __future__ import annotations

from typing import Any

from torch.nn import Module
from torch.nn.utils import _named_member_accessor

__all__ = ["lend_through"]


def lend_through(namespace_type: type[Any]) -> None:
    """Let the namespaces of this type swap what they `lend`, from now on.

    `namespace.lends(name, tensor)` says whether it does, `namespace.swap(name, tensor)` gives
    what had the name before.
    """
    torch_swap: Any = _named_member_accessor.swap_tensor
    if torch_swap.__module__ == __name__:
        return  # done before

    def swap_tensor(module: Module, name: str, tensor: Any, allow_missing: bool = False) -> Any:
        namespace: Any = getattr(module, "_buffers", None)
        if type(namespace) is namespace_type and namespace.lends(name, tensor):
            return namespace.swap(name, tensor)
        return torch_swap(module, name, tensor, allow_missing)

    _named_member_accessor.swap_tensor = swap_tensor
