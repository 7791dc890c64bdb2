"""Warns of optimizers that would go on with Parameters that are no longer part of a module."""

from __future__ import annotations

import warnings
from weakref import ref

from torch.nn import Parameter
from torch.optim import Optimizer

from paramdesc.registration.tied import modules_with
from paramdesc.torch_internals.optimizers import before_each_step

__all__ = ["note_gone"]

_GONE: dict[int, tuple[ref[Parameter], str, str]] = {}
"""By identity: the Parameter, its tensor, and the call that took its place. Removed when the
Parameter is freed, so that steps of optimizers cost nothing in general."""


def note_gone(parameter: Parameter, tensor: str, function: str) -> None:
    """Note that `function` has put other Parameters in the place of `parameter`."""
    key = id(parameter)
    _GONE[key] = (ref(parameter, lambda _: _GONE.pop(key, None)), tensor, function)
    before_each_step(warn_of_gone)


def warn_of_gone(optimizer: Optimizer) -> None:
    """Warn, once for each, of Parameters of `optimizer` that no module holds any more."""
    if not _GONE:
        return
    for group in optimizer.param_groups:
        for x in group["params"]:
            known = _GONE.get(id(x))
            if known is None or known[0]() is not x:
                continue
            del _GONE[id(x)]
            _, tensor, function = known
            if not modules_with([x])[id(x)]:
                warnings.warn(
                    f"{type(optimizer).__name__} has a Parameter that is gone: {function} has put "
                    f"others in its place for {tensor}, and {type(optimizer).__name__} does not "
                    f"train these. Write {function}(..., optimizer=optimizer), or create the "
                    "optimizer afterwards.",
                    stacklevel=4,
                )
