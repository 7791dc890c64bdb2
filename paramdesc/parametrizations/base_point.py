"""The base class of maps relative to a base point, which an assignment moves to the value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization

__all__ = ["BasePoint"]


class BasePoint(Parametrization):
    """A map with a buffer `base`. Subclasses define `forward`, `check` and `rebase`.

    The base point is None until the map is registered on a weight or a value is assigned.
    """

    if TYPE_CHECKING:  # TorchScript infers the type of a buffer that is not annotated
        base: Tensor | None

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self.register_buffer("base", None)

    def check(self, X: Tensor) -> None:
        """Raise if the map cannot take a tensor of this shape or dtype."""
        raise NotImplementedError

    def rebase(self, Y: Tensor) -> Tensor:
        """Set `base` for the value `Y`, and return the original that gives `Y` from there."""
        raise NotImplementedError(f"{type(self).__name__} defines no rebase().")

    @torch.inference_mode(False)  # an inference tensor could not be used in training later
    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> Tensor:
        self.check(Y)
        self.admit(Y)
        return self.rebase(Y)
