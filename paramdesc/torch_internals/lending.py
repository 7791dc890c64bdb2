"""Lending a tensor to a parametrized name, as `torch.func.functional_call` does.

torch swaps each tensor in, and back after the call, with one function that reads the old tensor and
assigns the new one. On a parametrized name that would evaluate the maps and overwrite the
originals. So the first namespace installs a stand-in for this function. On a parametrized name, the
stand-in swaps the descriptor itself: the lent tensor *is* the weight, and nothing is evaluated.
Other names are left to torch.

Recognizing torch's function on the stack would need no stand-in, but every read of a parametrized
tensor would pay for it: 0.2 plain reads.
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
    """From now on, let namespaces of this type do the swaps for the names that they lend.

    `namespace.lends(name, tensor)` says whether the namespace does the swap, and
    `namespace.swap(name, tensor)` returns what had the name before.
    """

    def swap(own: Any, module: Module, name: str, tensor: Any, *args: Any) -> Any:
        namespace: Any = getattr(module, "_buffers", None)
        if type(namespace) is namespace_type and namespace.lends(name, tensor):
            return namespace.swap(name, tensor)
        return NotImplemented

    # most tensors of a model are plain, and must not pay for it
    when = "type(getattr(module, '_buffers', None)) is not dict"
    stand_in_for(_named_member_accessor.swap_tensor, swap, when)
