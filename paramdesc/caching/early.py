"""Rejects calls that read or clear `.grad` while gradients of the same parameters are deferred.

Deferred gradients are not in `.grad` yet: a step would miss them, they would be added unscaled or
unclipped to a gradient that was unscaled or clipped, and they would survive `zero_grad`. From the
first deferred scope on, optimizers are checked before each step, and these functions of torch
before each call:

| function | checked parameters |
|---|---|
| `Optimizer.zero_grad` | the optimizer's |
| `GradScaler.unscale_`, `GradScaler.step`, `ShardedGradScaler.unscale_` | the optimizer's |
| `Module.zero_grad`, `FullyShardedDataParallel.clip_grad_norm_` | the module's |
| `clip_grad_norm_`, `clip_grad_value_`, `clip_grads_with_norm_` | the given parameters' |
| `get_total_norm` | those whose `.grad` is one of the given gradients |

The other public functions of torch that touch `.grad` call one of these or step an optimizer: the
deprecated `clip_grad_norm`, `PostLocalSGDOptimizer`, and `ZeroRedundancyOptimizer`. Two cases are
not detected: a program that reads `.grad` itself, and a call of `get_total_norm` for parameters
whose `.grad` is None because all of their gradients are deferred.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any

from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn import Module
from torch.nn.utils import clip_grad
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from paramdesc.caching.deferral import Deferral
from paramdesc.errors import DeferredGradientError
from paramdesc.torch_internals.dynamo import is_dynamo_compiling
from paramdesc.torch_internals.functions import stand_in_for

__all__ = ["refuse_early"]

Deferrals = Callable[[], list[Deferral]]
"""Returns the deferrals of the scopes that are open in the calling thread or task."""


def refuse_early(deferrals: Deferrals) -> None:
    """From now on, refuse calls that come before the deferred gradients."""
    refuse_here(deferrals)
    for module, owner, name in LATER:
        if module in sys.modules:  # otherwise nothing can have called it
            refuse_there(deferrals, module, owner, name)


@cache
def refuse_here(deferrals: Deferrals) -> None:
    register_optimizer_step_pre_hook(partial(before_step, deferrals))
    for owner, name, parameters in FUNCTIONS:
        function = getattr(owner, name, None)
        if function is not None:
            stand_in_for(function, partial(ask, deferrals, called(owner, name), parameters))


@cache
def refuse_there(deferrals: Deferrals, module: str, owner: str, name: str) -> None:
    function = getattr(getattr(sys.modules[module], owner, None), name, None)
    if function is not None:
        parameters = LATER[module, owner, name]
        stand_in_for(function, partial(ask, deferrals, f"{owner}.{name}", parameters))


def called(owner: Any, name: str) -> str:
    return f"{owner.__name__}.{name}" if isinstance(owner, type) else name.lstrip("_")


def before_step(deferrals: Deferrals, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
    """The hook before each step of an optimizer, which is also the first of `args`."""
    if is_dynamo_compiling() or not deferrals():
        return None
    # a step calls its closure first, and the closure may call scope.backward()
    has_closure = kwargs.get("closure") is not None or (len(args) > 1 and callable(args[1]))
    if not has_closure:
        refuse(deferrals, "optimizer.step()", parameters_of(optimizer))
        return None

    def checked(closure: Callable[[], Any]) -> Callable[[], Any]:
        @functools.wraps(closure)
        def call() -> Any:
            loss = closure()
            refuse(deferrals, "optimizer.step(closure)", parameters_of(optimizer))
            return loss

        return call

    if kwargs.get("closure") is not None:
        return args, {**kwargs, "closure": checked(kwargs["closure"])}
    return (args[0], checked(args[1]), *args[2:]), kwargs


def ask(
    deferrals: Deferrals,
    name: str,
    parameters: Callable[..., Iterable[Tensor]],
    own: Any,
    first: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Called before a function of torch that reads or clears the gradients of `parameters`."""
    if is_dynamo_compiling() or not (waiting := [held for held in deferrals() if held.waiting()]):
        return NotImplemented
    tensors = Tensors(first) if isinstance(first, Iterator) else first
    refuse(lambda: waiting, f"{name}()", parameters(tensors, *args, waiting=waiting))
    return NotImplemented if tensors is first else own(tensors.again(), *args, **kwargs)


def refuse(deferrals: Deferrals, what: str, parameters: Iterable[Tensor]) -> None:
    listed = list(parameters)
    names = [name for deferral in deferrals() for name in deferral.pending(listed)]
    if names:
        raise DeferredGradientError.early(what, names)


class Tensors(list[Tensor]):
    """The elements of an iterator, which can be iterated over again."""

    def again(self) -> Iterator[Tensor]:
        return (tensor for tensor in self)


def parameters_of(optimizer: Optimizer, *_: Any, **__: Any) -> list[Tensor]:
    return [x for group in optimizer.param_groups for x in group["params"]]


def stepped_by(scaler: Any, optimizer: Optimizer, *_: Any, **__: Any) -> list[Tensor]:
    return parameters_of(optimizer)


def owned_by(module: Module, *_: Any, **__: Any) -> list[Tensor]:
    return list(module.parameters())


def listed(tensors: Tensor | Iterable[Tensor], *_: Any, **__: Any) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def owners_of(
    gradients: Tensor | Iterable[Tensor], *_: Any, waiting: list[Deferral]
) -> list[Tensor]:
    """The parameters with deferred gradients whose present `.grad` is one of `gradients`."""
    wanted = {id(gradient) for gradient in listed(gradients)}
    leaves = (leaf for deferral in waiting for leaf in deferral.leaves())
    return [leaf for leaf in leaves if leaf.grad is not None and id(leaf.grad) in wanted]


FUNCTIONS: list[tuple[Any, str, Callable[..., Iterable[Tensor]]]] = [
    (Optimizer, "zero_grad", parameters_of),
    (Module, "zero_grad", owned_by),
    (GradScaler, "unscale_", stepped_by),
    (GradScaler, "step", stepped_by),
    (clip_grad, "clip_grad_norm_", listed),
    (clip_grad, "clip_grad_value_", listed),
    (clip_grad, "_clip_grads_with_norm_", listed),
    (clip_grad, "_get_total_norm", owners_of),
]
LATER: dict[tuple[str, str, str], Callable[..., Iterable[Tensor]]] = {
    ("torch.distributed.fsdp.sharded_grad_scaler", "ShardedGradScaler", "unscale_"): stepped_by,
    (
        "torch.distributed.fsdp.fully_sharded_data_parallel",
        "FullyShardedDataParallel",
        "clip_grad_norm_",
    ): owned_by,
}
