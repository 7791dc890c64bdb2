"""One case: a map, a weight to register it on, and what is declared about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.testing import Report, check_parametrization

__all__ = ["Case"]


class Case:
    """`check_parametrization(make(), a random weight of this shape, **declared)`."""

    def __init__(
        self,
        make: Callable[[], Module],
        *shape: int,
        weight: Callable[[], Tensor] | None = None,
        **declared: Any,
    ) -> None:
        self.make = make
        self.weight = weight or (lambda: torch.randn(shape))
        self.declared = declared

    def run(self) -> Report:
        torch.manual_seed(0)
        return check_parametrization(self.make(), self.weight(), **self.declared)
