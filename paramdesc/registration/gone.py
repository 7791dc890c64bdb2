"""Warns of optimizers that would keep training Parameters that no module has any more."""

from __future__ import annotations

import gc
import warnings
from weakref import WeakValueDictionary

from torch.nn import Parameter
from torch.optim import Optimizer

from paramdesc.registration.tied import modules_with
from paramdesc.torch_internals.optimizers import before_each_step

__all__ = ["note_gone"]

_GONE: WeakValueDictionary[int, Parameter] = WeakValueDictionary()
"""The Parameters by identity. Those that are freed leave it, so that steps cost nothing then."""
_REASONS: dict[int, tuple[str, str]] = {}
"""By the same identity: the tensor, and the function that has replaced its Parameter."""


def note_gone(parameter: Parameter, tensor: str, function: str) -> None:
    """Note that `function` has replaced `parameter` with other Parameters."""
    if len(_REASONS) > 2 * len(_GONE) + 100:
        for key in [key for key in _REASONS if key not in _GONE]:
            del _REASONS[key]
    _REASONS[id(parameter)] = (tensor, function)
    _GONE[id(parameter)] = parameter
    before_each_step(warn_of_gone)


def warn_of_gone(optimizer: Optimizer) -> None:
    """Warn, once for each, of Parameters of `optimizer` that no module holds any more."""
    if not _GONE:
        return
    for group in optimizer.param_groups:
        for x in group["params"]:
            if id(x) not in _GONE:
                continue
            del _GONE[id(x)]
            tensor, function = _REASONS[id(x)]
            # the search does not see what `gc.freeze` has hidden
            if not gc.get_freeze_count() and not modules_with([x])[id(x)]:
                warnings.warn(
                    f"{type(optimizer).__name__} has a Parameter that is no longer part of a "
                    f"module: {function} has replaced it for {tensor}, and "
                    f"{type(optimizer).__name__} does not train its replacement. Write "
                    f"{function}(..., optimizer=optimizer), or create the optimizer afterwards.",
                    stacklevel=4,
                )
