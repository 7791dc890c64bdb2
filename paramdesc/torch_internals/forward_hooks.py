"""The older functions of torch that recompute a tensor in a hook before each call of its module.

`torch.nn.utils.weight_norm`, `torch.nn.utils.spectral_norm` and `torch.nn.utils.prune` replace
`module.weight` by a plain attribute. A forward pre-hook sets it, from tensors of the module that
are called `weight_g`, `weight_orig`, `weight_mask` and so on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ["HookedTensor", "hooked_tensors"]

WEIGHT_NORM, SPECTRAL_NORM, PRUNING = (
    "torch.nn.utils.weight_norm",
    "torch.nn.utils.spectral_norm",
    "torch.nn.utils.prune",
)
SUFFIXES: dict[str, tuple[str, ...]] = {
    WEIGHT_NORM: ("_g", "_v"),
    SPECTRAL_NORM: ("_orig", "_u", "_v"),
    PRUNING: ("_orig", "_mask"),
}


def machinery_of(hook: object) -> str | None:
    """The module of torch that has put a hook on a module. None for other hooks."""
    if isinstance(hook, WeightNorm):
        return WEIGHT_NORM
    if isinstance(hook, SpectralNorm):
        return SPECTRAL_NORM
    # not imported here: that would add an attribute to torch.nn.utils
    pruning: Any = sys.modules.get(PRUNING)
    is_pruning = pruning is not None and isinstance(hook, pruning.BasePruningMethod)
    return PRUNING if is_pruning else None


class HookedTensor:
    """A tensor of a module that one of these hooks sets."""

    def __init__(self, hook: Any, machinery: str) -> None:
        self.hook = hook
        self.machinery = machinery
        self.tensor_name: str = hook._tensor_name if machinery == PRUNING else hook.name
        self.parts = [f"{self.tensor_name}{suffix}" for suffix in SUFFIXES[machinery]]

    def compute(self, module: Module) -> Tensor:
        """What the hook would set now. A spectral norm makes no step of its iteration."""
        if self.machinery == SPECTRAL_NORM:
            return self.hook.compute_weight(module, do_power_iteration=False)  # type: ignore[no-any-return]
        if self.machinery == WEIGHT_NORM:
            return self.hook.compute_weight(module)  # type: ignore[no-any-return]
        return self.hook.apply_mask(module)  # type: ignore[no-any-return]

    def original_name(self) -> str | None:
        """The name of the one tensor that the value replaces. None if there are several."""
        return None if self.machinery == WEIGHT_NORM else self.parts[0]

    def settings(self) -> tuple[Any, ...]:
        """What the value depends on besides tensors."""
        if self.machinery == PRUNING:
            return (self.machinery,)
        return (self.machinery, self.hook.dim)

    def remove(self, module: Module) -> None:
        """Delete the hooks, the attribute and the tensors that it is computed from."""
        module.__dict__.pop(self.tensor_name, None)
        for part in self.parts:
            module._parameters.pop(part, None)
            module._buffers.pop(part, None)
            module._non_persistent_buffers_set.discard(part)
        state: Any = module
        for hooks in (
            state._forward_pre_hooks,
            state._state_dict_hooks,
            state._load_state_dict_pre_hooks,
        ):
            for key in [key for key, hook in hooks.items() if self.owns(hook)]:
                del hooks[key]

    def owns(self, hook: Any) -> bool:
        """Whether `hook` is the hook itself, or one that refers to it by `fn`."""
        function = getattr(hook, "hook", hook)  # torch wraps some of them
        return function is self.hook or getattr(function, "fn", None) is self.hook


def hooked_tensors(module: Module) -> Iterator[HookedTensor]:
    """The tensors of `module` that such a hook sets, in the order of the hooks."""
    for hook in list(module._forward_pre_hooks.values()):
        machinery = machinery_of(hook)
        if machinery is not None:
            yield HookedTensor(hook, machinery)
