"""Moving data between tensor objects, and comparing the memory of tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from paramdesc.torch_internals.mode import has_numbers

__all__ = [
    "address",
    "alias",
    "inner_tensors",
    "is_wrapper",
    "memory_of",
    "set_data",
    "shares_storage",
]


def alias(tensor: Tensor) -> Tensor:
    """Another tensor object of the same kind over the same memory."""
    if isinstance(tensor, Parameter):
        return Parameter(tensor, tensor.requires_grad)
    has_memory = tensor.layout == torch.strided and not is_wrapper(tensor)
    if not has_memory:
        return tensor.detach()
    # not detach(): a detached tensor refuses set_, which registration calls
    twin = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    set_data(twin, tensor.detach())
    return twin.requires_grad_(tensor.requires_grad)


def is_wrapper(tensor: Tensor) -> bool:
    """Whether `tensor` is of a subclass that keeps its data in other tensors."""
    return bool(is_traceable_wrapper_subclass(tensor))


def inner_tensors(tensor: Tensor) -> list[str]:
    """The attributes in which a subclass keeps its data. Empty for other tensors."""
    if type(tensor) in (Tensor, Parameter) or not is_wrapper(tensor):
        return []
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    return [name for name in names if isinstance(getattr(tensor, name, None), Tensor)]


def memory_of(tensor: Tensor) -> list[Tensor]:
    """The tensors that hold the numbers of `tensor`. Empty for tensors without numbers."""
    names = inner_tensors(tensor)
    if names:
        return [part for name in names for part in memory_of(getattr(tensor, name))]
    if not has_numbers(tensor):
        return []
    if is_functorch_wrapped_tensor(tensor):
        return memory_of(get_unwrapped(tensor))
    parts = _PARTS.get(tensor.layout)
    return [tensor] if parts is None else [getattr(tensor, part)() for part in parts]


_PARTS: dict[torch.layout, tuple[str, ...]] = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


def address(tensor: Tensor) -> int:
    """The address of the data of `tensor`; 0 if it has no memory of its own."""
    if not has_numbers(tensor):
        return 0  # torch warns if a fake tensor is asked
    try:
        return tensor.data_ptr()
    except (RuntimeError, NotImplementedError):  # fake, wrapped by a transform, or a subclass
        return 0


def shares_storage(a: Tensor, b: Tensor) -> bool:
    """Whether writing to one may change the other."""
    a, b = data_of(a), data_of(b)
    if not address(a) or not address(b):
        return a is b
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def data_of(tensor: Tensor) -> Tensor:
    """The first tensor in which a subclass keeps its data, or `tensor` itself."""
    names = inner_tensors(tensor)
    return data_of(getattr(tensor, names[0])) if names else tensor


def set_data(target: Tensor, source: Tensor) -> None:
    """Let the plain tensor `target` have the memory, shape and strides of `source`."""
    target.set_(source)  # type: ignore[call-overload]  # torch's stub lacks this form
