"""torch's stick-breaking transform, without synchronizing with the device."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.distributions.transforms import StickBreakingTransform
from torch.nn.functional import pad

from paramdesc.linalg.running import running_products

__all__ = ["StickBreaking", "without_wait"]


class StickBreaking(StickBreakingTransform):
    """The same function as torch's: `y[k] = z[k] (1 - z[0]) ... (1 - z[k - 1])`.

    With `z = sigmoid(x - log(n - k))` for `n` numbers, and one for the last `z`.
    """

    def _call(self, x: Tensor) -> Tensor:
        n, finfo = x.shape[-1], torch.finfo(x.dtype)
        places = n + 1 - x.new_ones(n).cumsum(-1)
        z = torch.sigmoid(x - places.log()).clamp(min=finfo.tiny, max=1.0 - finfo.eps)
        return pad(z, [0, 1], value=1) * pad(running_products(1 - z), [1, 0], value=1)


def without_wait(transform: Any) -> Any:
    """`transform` with torch's version replaced by `StickBreaking`, in its parts too."""
    if type(transform) is StickBreakingTransform:
        return StickBreaking()
    state = getattr(transform, "__dict__", {})
    changed = {name: without_wait(state[name]) for name in ("base_transform",) if name in state}
    for name in ("transforms", "parts"):
        if name in state:
            changed[name] = [without_wait(part) for part in state[name]]
    if not changed:
        return transform
    twin = copy.copy(transform)
    vars(twin).update(changed)
    return twin
