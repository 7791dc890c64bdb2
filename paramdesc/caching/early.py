"""What reads or clears `.grad` is refused while gradients of the same parameters are deferred.

They are not in `.grad` yet: a step would miss them, an unscaled or clipped gradient would be
mixed with others, and a cleared one would come back. From the first deferred scope on,
optimizers ask before they step, and some functions of torch have a stand-in that asks. A
name of these functions that was imported before is torch's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn import Module
from torch.nn.utils import clip_grad
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from paramdesc.errors import DeferredGradientError
from paramdesc.torch_internals.dynamo import is_dynamo_compiling

__all__ = ["ask_before", "refuse_early"]

Pending = Callable[[Iterable[Tensor]], list[str]]
"""Names the tensors whose deferred gradients lead to one of these parameters."""

_refusing = False


def refuse_early(pending: Pending) -> None:
    """From now on, refuse what would come too early."""
    global _refusing
    if _refusing:
        return
    _refusing = True

    def refuse(what: str, parameters: Iterable[Tensor]) -> None:
        names = [] if is_dynamo_compiling() else pending(parameters)
        if names:
            raise DeferredGradientError.early(what, names)

    def before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure) or is_dynamo_compiling():
            refuse("optimizer.step()", parameters_of(optimizer))
            return None

        @functools.wraps(closure)
        def checked() -> Any:
            loss = closure()
            refuse("optimizer.step(closure)", parameters_of(optimizer))
            return loss

        # the step begins with the closure, which may be what brings the gradients
        if "closure" in kwargs:
            return args, {**kwargs, "closure": checked}
        return (args[0], checked, *args[2:]), kwargs

    register_optimizer_step_pre_hook(before_step)
    ask_before(Optimizer, "zero_grad", lambda x, *_, **__: parameters_of(x), refuse)
    ask_before(Module, "zero_grad", lambda x, *_, **__: list(x.parameters()), refuse)
    ask_before(GradScaler, "unscale_", lambda _, x: parameters_of(x), refuse)
    for name in ("clip_grad_norm_", "clip_grad_value_"):
        for module in (clip_grad, torch.nn.utils):
            ask_before(module, name, lambda x, *_, **__: listed(x), refuse)


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [x for group in optimizer.param_groups for x in group["params"]]


def listed(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def ask_before(
    owner: Any,
    name: str,
    parameters: Callable[..., list[Tensor]],
    refuse: Callable[[str, Iterable[Tensor]], None],
) -> None:
    """Let the function of that name in `owner` first refuse what is early for its parameters."""
    function = getattr(owner, name)
    takes_tensors = not isinstance(owner, type)

    @functools.wraps(function)
    def ask(first: Any, *args: Any, **kwargs: Any) -> Any:
        if takes_tensors:
            first = listed(first)  # it may be an iterator
        refuse(f"{name}()", parameters(first, *args, **kwargs))
        return function(first, *args, **kwargs)

    setattr(owner, name, ask)
