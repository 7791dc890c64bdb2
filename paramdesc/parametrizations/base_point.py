"""The base class of maps that are relative to a base point, which assignment moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization

__all__ = ["BasePoint", "check_rebase", "shown_rebase"]


class BasePoint(Parametrization):
    """A map with a buffer `base`. Subclasses define `forward`, `check`, `start` and `recenter`.

    The base point is None until the map is registered on a weight or a value is assigned. While
    the original is trained, it moves to the value every `rebase` steps.
    """

    base_point = ("base",)
    if TYPE_CHECKING:  # TorchScript infers the type of a buffer that is not annotated
        base: Tensor | None

    def __init__(self, *, rebase: int | None = 50, strict: bool = False) -> None:
        super().__init__(strict=strict)
        check_rebase(rebase)
        self.rebase = rebase
        self.register_buffer("base", None)

    def check(self, X: Tensor) -> None:
        """Raise if the map cannot take a tensor of this shape or dtype."""
        raise NotImplementedError

    def start(self, Y: Tensor) -> Tensor:
        """Set `base` for the value `Y`, and return the original that gives `Y` from there."""
        raise NotImplementedError(f"{type(self).__name__} defines no start().")

    @torch.inference_mode(False)  # an inference tensor could not be used in training later
    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> Tensor:
        self.check(Y)
        self.admit(Y)
        before = self.base
        X = self.start(Y)
        now = self.base
        if before is not None and now is not None and is_like(before, now):
            self.base = before.copy_(now)  # the object that DDP and CUDA graphs hold
        return X

    def shown_rebase(self) -> list[str]:
        """`rebase` for `extra_repr`, unless it has its default value."""
        return shown_rebase(self)


def shown_rebase(parametrization: Parametrization) -> list[str]:
    """The argument `rebase` for `extra_repr`, unless it has its default value."""
    rebase = parametrization.rebase
    return [] if rebase == Parametrization.rebase else [f"rebase={rebase}"]


def check_rebase(rebase: int | None) -> None:
    """Refuse a number of steps that is not positive."""
    if rebase is not None and not (type(rebase) is int and rebase > 0):
        raise ValueError(
            "rebase is the number of training steps after which the base point moves, or None "
            f"for never. Got rebase={rebase!r}."
        )


def is_like(one: Tensor, other: Tensor) -> bool:
    """Whether the entries of one tensor can be copied into the other without loss."""
    return not one.is_inference() and (one.shape, one.dtype, one.device) == (
        other.shape,
        other.dtype,
        other.device,
    )
