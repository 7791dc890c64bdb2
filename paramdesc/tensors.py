"""Handing data from one tensor object to another without changing who holds the object."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.__future__ import get_swap_module_params_on_conversion
from torch.nn import Parameter
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

__all__ = ["alias", "replace_all", "replace_data", "shares_storage"]


def alias(tensor: Tensor) -> Tensor:
    """Another tensor object of the same kind over the same memory."""
    if isinstance(tensor, Parameter):
        return Parameter(tensor.detach(), tensor.requires_grad)
    if is_traceable_wrapper_subclass(tensor) or tensor.layout != torch.strided:
        return tensor.detach()
    # a detached tensor refuses set_, which registration needs to do on it
    twin = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    set_data(twin, tensor.detach())
    return twin.requires_grad_(tensor.requires_grad)


def shares_storage(a: Tensor, b: Tensor) -> bool:
    """Whether writing to one may change the other."""
    try:
        return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() != 0
    except (RuntimeError, NotImplementedError):  # no storage of its own: fake, or a subclass
        return a is b


def replace_data(target: Tensor, source: Tensor) -> None:
    """Give `target` the data, shape and strides of `source`, and keep the object.

    Raises:
        RuntimeError: from torch, where dtype, device or subclass do not allow it.
    """
    with torch.no_grad():
        if get_swap_module_params_on_conversion() or is_traceable_wrapper_subclass(target):
            if isinstance(target, Parameter) and not isinstance(source, Parameter):
                source = Parameter(source, requires_grad=target.requires_grad)
            torch.utils.swap_tensors(target, source)  # type: ignore[no-untyped-call]
        else:
            set_data(target, source)


def set_data(target: Tensor, source: Tensor) -> None:
    target.set_(source)  # type: ignore[call-overload]  # torch's stub lacks this form


def replace_all(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """`replace_data` for every (target, source), or for none if one of them fails."""
    done: list[tuple[Tensor, Tensor]] = []
    try:
        for target, source in pairs:
            before = alias(target)
            replace_data(target, source)
            done.append((target, before))
    except BaseException:
        for target, before in reversed(done):
            replace_data(target, before)
        raise
