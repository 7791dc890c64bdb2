"""Records operations and repeats them on the same memory, as a CUDA graph does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.grad_mode import _unsafe_preserve_version_counter as keep_versions
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Recording"]


def tensors_in(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _FlopCounterMode(TorchDispatchMode):
    """The operations inside of the block. At its end, everything written there is restored.

    It has the name of torch's counter of operations, with which tensors count as plain.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Any, Any, Any, list[Tensor], set[int]]] = []
        self.before: dict[int, tuple[Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = args[place] if place < len(args) else kwargs.get(argument.name)
                for tensor in tensors_in(written):
                    storage: Any = tensor.untyped_storage()
                    self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        results = func(*args, **kwargs)
        given = {address(tensor) for tensor in tensors_in((args, kwargs))}
        self.operations.append((func, args, kwargs, tensors_in(results), given))
        return results

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        for storage, before in self.before.values():
            storage.copy_(before)

    def replay(self) -> None:
        """Repeat the operations, without raising the version of any tensor."""
        for func, args, kwargs, results, given in self.operations:
            touched = (*tensors_in((args, kwargs)), *results)
            with torch.no_grad(), keep_versions(touched):
                again = tensors_in(func(*args, **kwargs))
                for result, new in zip(results, again, strict=True):
                    if address(result) not in given and result.numel():
                        result.copy_(new)


_FlopCounterMode.__module__ = "torch.utils.flop_counter"
Recording = _FlopCounterMode
