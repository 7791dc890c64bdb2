"""The twin of a map that keeps a state for its next evaluation."""

from __future__ import annotations

import inspect
from typing import Any

from torch.nn import Module

from paramdesc.chain.parametrization import Parametrization
from paramdesc.jit.replicas import replica, twin_class
from paramdesc.jit.source import keep_source

__all__ = ["make_warm_map"]


def make_warm_map(parametrization: Parametrization, children: dict[str, Module | None]) -> Module:
    """The twin of such a map. Its chain says when a step was made, as in Python."""
    cls: Any = type(parametrization)
    text = follow_text(parametrization)
    keep_source(text)
    twin = replica(parametrization, twin_class(cls, text), children)
    twin.__dict__["is_due"] = parametrization.is_due
    return twin


def follow_text(parametrization: Parametrization) -> str:
    """`follow` for as many tensors as `forward` takes: TorchScript supports no `*originals`."""
    inputs = [f"X{i}" for i, _ in enumerate(inspect.signature(parametrization.forward).parameters)]
    state = [f"self.{name}" for name in parametrization.warm_start]
    copies = "".join(f"            {x}.copy_(better[{i}])\n" for i, x in enumerate(state))
    return (
        f"def follow(self, {', '.join(f'{x}: Tensor' for x in inputs)}) -> None:\n"
        "    if self.is_due:\n"
        "        self.is_due = False\n"
        "        with torch.no_grad():\n"
        f"            better = self.refine({', '.join([*inputs, *state])})\n"
        f"{copies}"
    )
