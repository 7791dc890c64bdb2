"""Lending a tensor to a parametrized name, as `torch.func.functional_call` does.

torch swaps each tensor in, and back after the call, by one function that reads the old one
and assigns the new one. On a parametrized name that would evaluate the maps and overwrite
the originals. So with the first namespace, that function gets a stand-in: there the descriptor
itself is swapped, the lent tensor *is* the weight, and nothing is evaluated. All else is left
to torch's own.

To recognise torch's function on the stack, as it is done elsewhere, would need no change to
torch, and every read of a parametrized tensor would pay for it: 0.2 plain reads.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch.nn import Module
from torch.nn.utils import _named_member_accessor

from paramdesc.torch_internals.functions import stand_in_for

__all__ = ["lend_through"]


@cache
def lend_through(namespace_type: type[Any]) -> None:
    """Let the namespaces of this type swap what they `lend`, from now on.

    `namespace.lends(name, tensor)` says whether it does, `namespace.swap(name, tensor)` gives
    what had the name before.
    """

    def swap(own: Any, module: Module, name: str, tensor: Any, *args: Any) -> Any:
        namespace: Any = getattr(module, "_buffers", None)
        if type(namespace) is namespace_type and namespace.lends(name, tensor):
            return namespace.swap(name, tensor)
        return NotImplemented

    # a model has many plain tensors beside those
    when = "type(getattr(module, '_buffers', None)) is not dict"
    stand_in_for(_named_member_accessor.swap_tensor, swap, when)
