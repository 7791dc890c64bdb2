"""Detects optimizers that keep a second copy of a parameter, beside averages of gradients."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from paramdesc.torch_internals.tensors import shares_storage

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

    Some train a second copy of a parameter and write it back, or average over steps. A tensor that
    an unknown optimizer keeps counts as a copy if it points in the same direction: averages of
    gradients point against it. This waits for the device, once per optimizer and tensor.
    """
    for optimizer in optimizers:
        if (type(optimizer).__module__, type(optimizer).__name__) == _AVERAGING:
            yield optimizer, "those of other processes"
        known = _WITHOUT_COPIES.setdefault(optimizer, set())
        for name, tensors in kept_by(optimizer, original):
            kept = [] if (id(original), name) in known else list(tensors)
            alike = [x for x in kept if is_comparable(x, original)]
            if any(is_along(x.detach(), original.detach()) for x in alike):
                yield optimizer, name
            elif kept and not (alike and any(is_zero(x.detach()) for x in (original, *alike))):
                known.add((id(original), name))  # zero has no direction yet


def kept_by(optimizer: Optimizer, original: Tensor) -> Iterator[tuple[str, Iterator[Tensor]]]:
    """What `optimizer` keeps for `original`, and in lists or dicts of its own, by name."""
    state = getattr(optimizer, "state", {}).get(original, {})
    for name, value in state.items() if isinstance(state, dict) else ():
        if name not in _AVERAGES:
            yield f"state[{name!r}]", tensors_in(value)
    for name, value in vars(optimizer).items():
        if name not in ("state", "param_groups", "defaults"):
            yield name, tensors_in(value)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(item)


def is_comparable(tensor: Tensor, original: Tensor) -> bool:
    """Whether `tensor` may be a copy: of the same shape, and not `original` in another object."""
    is_number = tensor.is_floating_point() or tensor.is_complex()
    return is_number and tensor.shape == original.shape and not shares_storage(tensor, original)


def is_along(tensor: Tensor, original: Tensor) -> bool:
    """Whether `tensor` points in the direction of `original`."""
    norms = torch.linalg.vector_norm(original) * torch.linalg.vector_norm(tensor)
    return bool((tensor.conj() * original).sum().real > 0.5 * norms)


def is_zero(tensor: Tensor) -> bool:
    return bool(torch.linalg.vector_norm(tensor) == 0)
