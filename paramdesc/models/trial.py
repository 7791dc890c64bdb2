"""Evaluates a chain without side effects: on a copy, in evaluation mode, outside all scopes."""

from __future__ import annotations

import copy
from contextvars import Context
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from paramdesc.chain.parametrization import Parametrization

__all__ = ["constrained_map", "measure", "try_on"]


def try_on(chain: Module, *, meta: bool) -> Tensor | None:
    """The value of a copy of `chain`, or with `meta` its shape and dtype alone; None on an error.

    The copy is in evaluation mode, so that states of iterations stay as they are.
    """
    try:
        return Context().run(evaluate_copy, chain, meta)  # a context without scopes
    except Exception:  # a map that cannot be copied, or that computes only on a device
        return None


@torch.no_grad()
def evaluate_copy(chain: Module, meta: bool) -> Tensor:
    # with `meta`, no data is copied
    memo: dict[int, Any] = {id(x): as_meta(x) for x in tensors_of(chain)} if meta else {}
    twin = copy.deepcopy(chain, memo).eval()
    with torch.random.fork_rng(device_type=device_type(chain)):
        value: Tensor = twin.forward()
    return value


def tensors_of(chain: Module) -> list[Tensor]:
    return [*chain.parameters(), *chain.buffers()]


def device_type(chain: Module) -> str:
    """The type of device whose random state must be kept: `fork_rng` keeps that of the CPU too."""
    types = [x.device.type for x in tensors_of(chain)]
    return next((name for name in types if name not in ("cpu", "meta")), "cuda")


def as_meta(x: Tensor) -> Tensor:
    twin = torch.empty_like(x, device="meta")
    return Parameter(twin, x.requires_grad) if isinstance(x, Parameter) else twin


def constrained_map(maps: list[Module]) -> Parametrization | None:
    """The last map, if it declares a constraint: that of an earlier one need not hold after it."""
    last = maps[-1] if maps else None
    if not isinstance(last, Parametrization):
        return None
    return None if type(last).deviation is Parametrization.deviation else last


@torch.no_grad()
def measure(parametrization: Parametrization, value: Tensor) -> tuple[float, float] | None:
    """The deviation of a value from the constraint of a map, and its tolerance."""
    try:
        twin = copy.deepcopy(parametrization).eval()
        return twin.deviation(value).item(), twin.tolerance(value)
    except Exception:  # a map around others that have no constraint
        return None
