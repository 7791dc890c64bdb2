"""Parametrizations of tensors that have no shape yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Module
from torch.nn.parameter import is_lazy

__all__ = ["PendingRegistration", "cancel_pending", "register_when_materialized"]


class PendingRegistration:
    """A forward pre-hook that registers a map once the tensor has a shape, then removes itself.

    It runs after the hook in which a lazy module gives its tensors their shape, holds no reference
    to the module, and is copied and pickled with it. Until then, the map is not part of the module:
    its parameters are not listed, and a checkpoint of a parametrized module does not fit. If the
    module is converted in the meantime, the map is converted at registration.
    """

    def __init__(
        self,
        register: Callable[..., Any],
        tensor_name: str,
        parametrization: Module,
        unsafe: bool,
        kind: tuple[torch.device, torch.dtype],
    ) -> None:
        self.register = register
        self.tensor_name = tensor_name
        self.parametrization = parametrization
        self.unsafe = unsafe
        self.kind = kind

    def __call__(self, module: Module, arguments: Any) -> None:
        tensor: Any = getattr(module, self.tensor_name)
        if is_lazy(tensor):
            return
        kind = (tensor.device, tensor.dtype)
        if kind != self.kind:  # the module was converted meanwhile
            self.parametrization.to(*kind)
        self.register(module, self.tensor_name, self.parametrization, unsafe=self.unsafe)
        remove_hook(module, self)


def remove_hook(module: Module, pending: PendingRegistration) -> None:
    hooks = module._forward_pre_hooks
    for key in [key for key, hook in hooks.items() if hook is pending]:
        del hooks[key]


def register_when_materialized(
    register: Callable[..., Any],
    module: Module,
    tensor_name: str,
    parametrization: Module,
    unsafe: bool,
) -> None:
    """Call `register` for the tensor at the module's first call that finds it with a shape."""
    tensor: Any = getattr(module, tensor_name)
    kind = (tensor.device, tensor.dtype)
    module.register_forward_pre_hook(
        PendingRegistration(register, tensor_name, parametrization, unsafe, kind)
    )


def cancel_pending(module: Module, tensor_name: str) -> bool:
    """Cancel the pending registrations for the tensor. False if there were none."""
    waiting = [
        hook
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, PendingRegistration) and hook.tensor_name == tensor_name
    ]
    for hook in waiting:
        remove_hook(module, hook)
    return bool(waiting)
