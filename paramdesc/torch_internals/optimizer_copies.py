"""Detects optimizers that keep a second copy of a parameter, beside averages of gradients."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["copies_of", "enclosing_optimizers"]

_AVERAGES = {
    "momentum_buffer",
    "exp_avg",
    "exp_avg_sq",
    "max_exp_avg_sq",
    "square_avg",
    "grad_avg",
    "sum",
    "acc_delta",
    "exp_inf",
    "prev",
    "step_size",
    "row_var",
    "col_var",
    "variance",
    "state1",
    "state2",
    "max1",
    "max2",
    "absmax1",
    "absmax2",
}
"""The names under which well-known optimizers keep averages of gradients."""
_WITHOUT_COPIES: WeakKeyDictionary[Optimizer, set[tuple[int, str]]] = WeakKeyDictionary()
_AVERAGING = ("torch.distributed.optim.post_localSGD_optimizer", "PostLocalSGDOptimizer")


def enclosing_optimizers() -> list[Optimizer]:
    """The optimizers whose `step` is running, including those for which torch calls no hooks.

    Wrappers of optimizers often do not call `Optimizer.__init__`, which would add the hooks.
    """
    found = []
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "step" and frame.f_code.co_varnames[:1] == ("self",):
            runner = frame.f_locals["self"]
            if isinstance(runner, Optimizer):
                found.append(runner)
        frame = frame.f_back  # type: ignore[assignment]
    return found


def copies_of(original: Tensor, optimizers: list[Optimizer]) -> Iterator[tuple[Optimizer, str]]:
    """The optimizers that keep a copy of `original` or use those of other processes, and where.

    Some train a second copy of a parameter and write it back, or average over steps. A tensor in
    the state of an unknown optimizer counts as a copy if it points in the same direction: averages
    of gradients point against it. This waits for the device, once per optimizer and tensor.
    """
    for optimizer in optimizers:
        if (type(optimizer).__module__, type(optimizer).__name__) == _AVERAGING:
            yield optimizer, "those of other processes"
        state = getattr(optimizer, "state", {}).get(original, {})
        known = _WITHOUT_COPIES.setdefault(optimizer, set())
        for name, tensor in state.items() if isinstance(state, dict) else ():
            if name in _AVERAGES or (id(original), name) in known:
                continue
            if not isinstance(tensor, Tensor) or tensor.shape != original.shape:
                continue
            if tensor.is_floating_point() or tensor.is_complex():
                size = torch.linalg.vector_norm(original.detach())
                angle = (tensor.detach().conj() * original.detach()).sum().real
                if bool(angle > 0.5 * size * torch.linalg.vector_norm(tensor.detach())):
                    yield optimizer, f"state[{name!r}]"
                elif bool(size > 0):
                    known.add((id(original), name))
