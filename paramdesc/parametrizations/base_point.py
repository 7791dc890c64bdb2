"""Maps that start from a base point, which assigning moves to the value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization

__all__ = ["BasePoint"]


class BasePoint(Parametrization):
    """A map with a buffer `base`. Derive from it and define `forward`, `check` and `rebase`.

    The base point is None until a value is assigned, or the map is registered on a weight.
    """

    if TYPE_CHECKING:  # TorchScript takes buffers as what they hold, unless they are annotated
        base: Tensor | None

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self.register_buffer("base", None)

    def check(self, X: Tensor) -> None:
        """Refuse a tensor that the map cannot take, whatever its entries are."""
        raise NotImplementedError

    def rebase(self, Y: Tensor) -> Tensor:
        """Set `base` for the value `Y`, and return the original that gives `Y` from there."""
        raise NotImplementedError(f"{type(self).__name__} defines no rebase().")

    @torch.inference_mode(False)  # a base made there could not be trained on elsewhere
    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> Tensor:
        self.check(Y)
        self.admit(Y)
        return self.rebase(Y)
