"""Notices the steps of optimizers, through the hooks that torch calls before and after each step.

The versions of parameters do not show every step: fused kernels, writes to `.data` and the wrappers
of sharded training do not raise them. torch calls the hooks for every `Optimizer`, including those
of other packages. The hooks only read parameters.

A step that is captured in a CUDA graph is announced during the capture, because what is captured
after it follows it, and after each replay of the graph.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from functools import cache, cached_property, partial
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from paramdesc.torch_internals.captures import current_capture, watch_captures

__all__ = ["StepMade", "before_each_step", "on_step", "watch_captured_steps"]

_LISTENERS: list[Callable[[StepMade], None]] = []
_FLAT = "torch.distributed.fsdp._flat_param"


class StepMade:
    """The parameters that one step of an optimizer has written to.

    An optimizer may call the step of another one. `is_whole` is False for the inner step: the outer
    one may still write to the parameters. The outer step includes the parameters of the inner one.
    """

    def __init__(
        self, parameters: list[Tensor], optimizers: list[Optimizer], is_whole: bool = True
    ) -> None:
        self.parameters = parameters  # references, so that the identities stay valid
        self.optimizers = optimizers
        self.is_whole = is_whole
        self.identities = {id(parameter) for parameter in parameters}

    def wrote_any(self, identities: frozenset[int]) -> bool:
        """Whether one of the tensors with these identities was a parameter of the step."""
        return not self.identities.isdisjoint(identities)

    def wrote(self, tensors: Iterable[Tensor], modules: Iterable[Any]) -> bool:
        """Whether the step wrote to one of `tensors`, or to a tensor of one of `modules`.

        This includes tensors that are part of a flat buffer, if the optimizer has the buffer.
        """
        listed = list(tensors)
        if any(id(tensor) in self.identities for tensor in listed):
            return True
        parts = [tensor for tensor in listed if is_part(tensor)]
        if any(place_of(tensor) in self.places for tensor in parts):
            return True
        return bool(self.flattened) and any(id(module) in self.flattened for module in modules)

    @cached_property
    def places(self) -> set[int | None]:
        """The addresses of the memory of the parameters."""
        return {place_of(parameter) for parameter in self.parameters} - {None}

    @cached_property
    def flattened(self) -> set[int]:
        """The identities of the modules whose parameters FSDP has flattened into one of these."""
        if _FLAT not in sys.modules:
            return set()
        found = (getattr(parameter, "_param_infos", ()) for parameter in self.parameters)
        return {id(info.module) for infos in found for info in infos}


def is_part(tensor: Tensor) -> bool:
    """Whether `tensor` may share its storage with another tensor."""
    try:
        storage: Any = tensor.untyped_storage()
        return storage.nbytes() > tensor.nbytes or count_uses(storage._cdata) > _ALONE
    except (NotImplementedError, RuntimeError):
        return False


_ALONE = 2
"""How often the storage of a tensor is used that shares it with no other: by it, and by Python."""


def count_uses(storage: int) -> int:
    """How many tensors and objects hold the storage; more than `_ALONE` if torch does not tell."""
    ask: Any = getattr(torch._C, "_storage_Use_Count", None)
    return _ALONE + 1 if ask is None else int(ask(storage))


def place_of(tensor: Tensor) -> int | None:
    """The address of the storage, equal for tensors that share it. None without a storage."""
    try:
        storage = tensor.untyped_storage()
        return storage.data_ptr() or None
    except (NotImplementedError, RuntimeError):
        return None


def on_step(listener: Callable[[StepMade], None]) -> None:
    """From now on, call `listener` after each step of any optimizer."""
    if listener in _LISTENERS:
        return
    register_hooks()
    _LISTENERS.append(listener)


@cache
def before_each_step(listener: Callable[[Optimizer], None]) -> None:
    """From now on, call `listener` before each step of any optimizer that is not compiled."""

    def hook(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not torch.compiler.is_compiling():
            listener(optimizer)

    register_optimizer_step_pre_hook(hook)


def register_hooks() -> None:
    register_pre_hook()  # each in a call of its own: after an interrupt, none is registered twice
    register_post_hook()


@cache
def register_pre_hook() -> None:
    register_optimizer_step_pre_hook(before_step)


@cache
def register_post_hook() -> None:
    register_optimizer_step_post_hook(after_step)


def watch_captured_steps() -> None:
    """From now on, notice the steps that are captured in CUDA graphs.

    The values that depend on them may be kept later, when there is only the replay to notice.
    """
    watch_captures(register_hooks)


class Running(NamedTuple):
    """A step that has begun. It holds no reference to the optimizer, in case the step raises."""

    optimizer: ref[Optimizer]
    call: int  # the identity of the frame in which torch calls the hooks
    with_gradient: set[int]  # the parameters with a gradient now: the step may clear the gradients
    inner: list[StepMade]

    def is_in(self, calls: dict[int, Any]) -> bool:
        """Whether the step is one of these calls. If not, an exception has ended it."""
        frame = calls.get(self.call)
        return frame is not None and frame.f_locals.get("self") is self.optimizer()


class RunningSteps(threading.local):
    """The steps that run in this thread, the outermost first."""

    def __init__(self) -> None:
        self.steps: list[Running] = []

    def drop_ended(self, frame: Any) -> None:
        """Forget the steps that do not enclose `frame`, in which a new one begins.

        A step that has raised may have had the same frame: Python uses frames again.
        """
        if self.steps:
            calls = {}
            while (frame := frame.f_back) is not None:
                calls[id(frame)] = frame
            self.steps = [step for step in self.steps if step.is_in(calls)]


_RUNNING = RunningSteps()


def before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if not torch.compiler.is_compiling():  # compiled steps increase versions
        frame = sys._getframe(1)
        _RUNNING.drop_ended(frame)
        with_gradient = {id(x) for x in parameters_of(optimizer) if x.grad is not None}
        _RUNNING.steps.append(Running(ref(optimizer), id(frame), with_gradient, []))


def after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if torch.compiler.is_compiling():
        return
    steps = _RUNNING.steps
    if not steps or steps[-1].call != id(sys._getframe(1)):
        return  # the step had begun before the hooks were registered
    running = steps.pop()
    written = [
        x for x in parameters_of(optimizer) if id(x) in running.with_gradient or x.grad is not None
    ]
    if was_skipped(optimizer):
        written = []
    written += [x for step in running.inner for x in step.parameters]
    optimizers = [optimizer, *(x for step in running.inner for x in step.optimizers)]
    outer = steps[-1] if steps else None
    step = StepMade(written, optimizers, is_whole=outer is None)
    if outer is not None:
        outer.inner.append(step)
    if written:
        announce(step)
        capture = current_capture()
        if capture is not None:
            capture.after_replay.append(partial(announce, step))


def announce(step: StepMade) -> None:
    for listener in _LISTENERS:
        listener(step)


def parameters_of(optimizer: Optimizer) -> Iterable[Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def was_skipped(optimizer: Optimizer) -> bool:
    """Whether a fused step wrote nothing, because of infinite gradients. Checked on a CPU only."""
    found = getattr(optimizer, "found_inf", None)
    return isinstance(found, Tensor) and found.device.type == "cpu" and bool(found.any())
