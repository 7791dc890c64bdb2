"""Checkpoints of torch's older functions, which stored their tensors under other names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.registration.plain_keys import expect_plain_last

__all__ = ["OldSpectralNorm", "OldWeightNorm", "load_old"]


def load_old(module: Module, rename: OldWeightNorm | OldSpectralNorm) -> None:
    """Let `module.load_state_dict` also accept the keys that `rename` knows."""
    known: Any = module._load_state_dict_pre_hooks.values()
    if any(getattr(hook, "hook", hook) == rename for hook in known):
        return
    # the public form holds a reference to the module, and a shallow copy would lose it
    module._register_load_state_dict_pre_hook(rename)  # type: ignore[no-untyped-call]
    expect_plain_last(module, rename.name)


@dataclass(frozen=True)
class OldWeightNorm:
    """Turn `weight_g` and `weight_v` into the two originals. Picklable; holds no module."""

    name: str
    dim: int | None

    def __call__(self, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        old = f"{prefix}{self.name}"
        if f"{old}_g" not in state_dict or f"{old}_v" not in state_dict:
            return
        g, v = state_dict.pop(f"{old}_g"), state_dict.pop(f"{old}_v")
        new = f"{prefix}parametrizations.{self.name}"
        state_dict[f"{new}.original0"] = self.reshaped(g, v)
        state_dict[f"{new}.original1"] = v

    def reshaped(self, g: Any, v: Any) -> Any:
        """`g` in its current shape: older versions stored the same entries in other shapes."""
        if not isinstance(g, Tensor) or not isinstance(v, Tensor):
            return g
        shape = [1] * v.ndim
        if self.dim is None or self.dim == -1:  # torch takes -1 for the whole tensor
            shape = []
        else:
            shape[self.dim] = v.shape[self.dim]
        return g.reshape(shape) if g.numel() == torch.Size(shape).numel() else g


@dataclass(frozen=True)
class OldSpectralNorm:
    """Turn `weight_orig`, `weight_u` and `weight_v` into original and state. Picklable."""

    name: str
    dim: int
    index: int  # of the map in its chain

    def __call__(self, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        old = f"{prefix}{self.name}"
        if f"{old}_orig" not in state_dict or f"{old}_u" not in state_dict:
            return
        original, u = state_dict.pop(f"{old}_orig"), state_dict.pop(f"{old}_u")
        value, v = state_dict.pop(old, None), state_dict.pop(f"{old}_v", None)
        new = f"{prefix}parametrizations.{self.name}"
        state_dict[f"{new}.original"] = original
        state_dict[f"{new}.{self.index}._u"] = u
        state_dict[f"{new}.{self.index}._v"] = self.other(original, u, value) if v is None else v

    def other(self, original: Tensor, u: Tensor, value: Tensor | None) -> Tensor:
        """The right vector, which the oldest files lack, chosen so that the norm is unchanged.

        Those files hold the value instead, which is the original divided by the norm.
        """
        with torch.no_grad():
            matrix = original.movedim(self.dim, 0).flatten(1)
            v = matrix.mH @ u
            length = torch.linalg.vector_norm(v)
            v /= torch.where(length > 0, length, 1)
            if value is None:
                return v
            norm = torch.linalg.vector_norm(original) / torch.linalg.vector_norm(value)
            v *= norm / torch.vdot(u, matrix @ v).real
            return v
