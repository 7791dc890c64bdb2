"""The row of a summary for one parametrized tensor."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

__all__ = ["SummaryRow"]


@dataclass(frozen=True)
class SummaryRow:
    """One parametrized tensor of a model.

    Attributes:
        name: Its path in the model, such as `encoder.0.weight`.
        also: Its other paths, if several modules share the same parametrization.
        engine: `"paramdesc"` or `"torch"`, the library that parametrizes it; `"pending"` for a lazy
            tensor that is parametrized as soon as it has a shape.
        maps: The maps with their settings, in order, as their `repr` shows them.
        shape: The shape of the value; None if it is not known.
        dtype: The dtype of the value; None if it is not known.
        device: The device of the originals.
        originals: The shapes of the originals, by name.
        trained: The number of trained entries of originals and maps that require a gradient.
        plain: The number of entries of the value, which a plain tensor would have.
        frozen: Whether none of its originals or maps is trained.
        kept: The caches that hold its value now: `"cached"`, `"persistent"`, `"auto_cache"`.
        constraint: The constraint of the last map, such as `"orthogonal"`; empty if it has none.
        deviation: The deviation of the value from the constraint; None without a constraint, or if
            it was not evaluated.
        tolerance: The deviation that rounding may cause; None like `deviation`.
    """

    name: str
    engine: str
    maps: tuple[str, ...]
    shape: tuple[int, ...] | None
    dtype: torch.dtype | None
    device: torch.device | None
    originals: dict[str, tuple[int, ...]] = field(default_factory=dict)
    trained: int = 0
    plain: int = 0
    frozen: bool = False
    also: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    constraint: str = ""
    deviation: float | None = None
    tolerance: float | None = None

    @property
    def is_satisfied(self) -> bool | None:
        """Whether the deviation is within the tolerance; None if it is not known."""
        if self.deviation is None or self.tolerance is None:
            return None
        return self.deviation <= self.tolerance
