"""The state of torch in which a value is evaluated, read through torch's private getters.

Two evaluations give the same tensor only if they run in the same mode: with or without
gradients, in inference mode or not, under the same autocast, the same dispatch modes
(fake tensors, proxies of an export) and the same `torch.jit` trace. Function transforms
are distinguished by the tensors that they wrap, see `belongs_to_transform`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch._C import (
    DisableTorchFunction,
)
from torch._C import (
    _are_functorch_transforms_active as has_transforms,
)
from torch._C import (
    _get_tracing_state as tracing_state,
)
from torch._C import (
    _is_any_autocast_enabled as has_autocast,
)
from torch._C import (
    _is_tracing as is_tracing,
)
from torch._C import (
    _len_torch_dispatch_stack as count_dispatch_modes,
)
from torch._C import (
    _len_torch_function_stack as count_function_modes,
)
from torch._C._functorch import maybe_current_level, maybe_get_level
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

__all__ = [
    "DisableTorchFunction",
    "Mode",
    "belongs_to_transform",
    "count_dispatch_modes",
    "count_function_modes",
    "current_mode",
    "has_autocast",
    "has_dual_tensors",
    "has_numbers",
    "has_own_functions",
    "has_transforms",
    "is_grad_enabled",
    "is_inference",
    "is_plain",
    "is_tracing",
]

is_grad_enabled = torch.is_grad_enabled
is_inference = torch.is_inference_mode_enabled

Mode = tuple[bool, bool, Any, Any, Any, Any, Any]


def current_mode() -> Mode:
    """The mode that the calling thread is in, comparable with `==`."""
    return (
        is_grad_enabled(),
        is_inference(),
        has_autocast() and autocast_state(),
        has_transforms() and maybe_current_level(),
        count_dispatch_modes() and dispatch_modes(),
        is_tracing() and tracing_state(),
        count_function_modes() and function_modes(),
    )


# by name: importing them takes a third of the import time of this library
DEFAULT_DEVICE = ("torch.utils._device", "DeviceContext")
FLOP_COUNTER = ("torch.utils.flop_counter", "_FlopCounterMode")


def is_called(mode: Any, name: tuple[str, str]) -> bool:
    """Whether `mode` is an instance of the class with this module and name."""
    return (type(mode).__module__, type(mode).__name__) == name


def dispatch_modes() -> tuple[Any, ...] | bool:
    """The active dispatch modes that may change a value, outermost first; False for none."""
    modes = _get_current_dispatch_mode_stack()
    return tuple(mode for mode in modes if not is_called(mode, FLOP_COUNTER)) or False


def function_modes() -> Any:
    """The active function modes that may change a value, outermost first; False for none.

    A default device is represented by its device, since each `with` creates a new mode.
    """
    modes: list[Any] = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return (
        tuple(
            ("default device", mode.device) if is_called(mode, DEFAULT_DEVICE) else mode
            for mode in modes
            if not getattr(mode, "changes_nothing", False)
        )
        or False
    )


def has_numbers(x: Tensor) -> bool:
    """Whether `x` holds numbers: meta and fake tensors do not."""
    return not (x.is_meta or isinstance(x, FakeTensor))


def is_plain() -> bool:
    """Whether tensors are plain: not wrapped by a transform, faked, or recorded."""
    return not (has_transforms() or (count_dispatch_modes() and dispatch_modes()) or is_tracing())


def has_dual_tensors() -> bool:
    """Whether tensors may carry a derivative in forward mode."""
    return forward_ad._current_level >= 0


def has_own_functions() -> bool:
    """Whether a function mode other than a default device may change what functions return."""
    modes = (count_function_modes() and function_modes()) or ()
    return any(isinstance(mode, TorchFunctionMode) for mode in modes)


def autocast_state() -> tuple[tuple[str, torch.dtype], ...]:
    """The devices under autocast, each with its dtype."""
    devices = dict.fromkeys(("cpu", "cuda", torch._C._get_accelerator().type))
    return tuple(
        (device, torch.get_autocast_dtype(device))
        for device in devices
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    )


def belongs_to_transform(tensors: Iterable[Tensor]) -> bool:
    """Whether one of `tensors` is wrapped by the innermost active function transform.

    A wrapper exists for one call of the transform only, so it tells that call from the
    next one at the same level; where none is wrapped, nothing does.
    """
    level = maybe_current_level()
    return any(maybe_get_level(tensor) == level for tensor in tensors)
