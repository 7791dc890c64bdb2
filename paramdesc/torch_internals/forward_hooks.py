"""The older functions of torch that recompute a tensor in a hook before each call of its module.

`torch.nn.utils.weight_norm`, `torch.nn.utils.spectral_norm` and `torch.nn.utils.prune` replace
`module.weight` by a plain attribute. A forward pre-hook sets it, from tensors of the module that
are called `weight_g`, `weight_orig`, `weight_mask` and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ["HookedTensor", "hooked_tensors"]

MACHINERY: dict[type[Any], str] = {
    WeightNorm: "torch.nn.utils.weight_norm",
    SpectralNorm: "torch.nn.utils.spectral_norm",
    BasePruningMethod: "torch.nn.utils.prune",
}
SUFFIXES: dict[type[Any], tuple[str, ...]] = {
    WeightNorm: ("_g", "_v"),
    SpectralNorm: ("_orig", "_u", "_v"),
    BasePruningMethod: ("_orig", "_mask"),
}


class HookedTensor:
    """A tensor of a module that one of these hooks sets."""

    def __init__(self, hook: Any, kind: type[Any]) -> None:
        self.hook = hook
        self.kind = kind
        self.tensor_name: str = hook._tensor_name if kind is BasePruningMethod else hook.name
        self.machinery = MACHINERY[kind]
        self.parts = [f"{self.tensor_name}{suffix}" for suffix in SUFFIXES[kind]]

    def compute(self, module: Module) -> Tensor:
        """What the hook would set now. A spectral norm makes no step of its iteration."""
        if self.kind is SpectralNorm:
            return self.hook.compute_weight(module, do_power_iteration=False)  # type: ignore[no-any-return]
        if self.kind is WeightNorm:
            return self.hook.compute_weight(module)  # type: ignore[no-any-return]
        return self.hook.apply_mask(module)  # type: ignore[no-any-return]

    def original_name(self) -> str | None:
        """The name of the one tensor that the value replaces. None if there are several."""
        return None if self.kind is WeightNorm else self.parts[0]

    def settings(self) -> tuple[Any, ...]:
        """What the value depends on besides tensors."""
        if self.kind is BasePruningMethod:
            return (self.kind,)
        return (self.kind, self.hook.dim)

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
        for kind in MACHINERY:
            if isinstance(hook, kind):
                yield HookedTensor(hook, kind)
