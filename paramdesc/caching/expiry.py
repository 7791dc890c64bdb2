"""Expires kept values on events such as an optimizer step, in all scopes and threads."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from torch import Tensor

from paramdesc.caching.record import Cause, Reason
from paramdesc.chain.transient import transient_of
from paramdesc.chain.watched import tell_of_steps, watch_chain
from paramdesc.torch_internals.optimizers import StepMade

__all__ = ["Expiry", "expire", "track"]


class Expiry:
    """Whether a kept value has expired, and why. Refers to neither the value nor the chain."""

    __slots__ = ("__weakref__", "cause", "tensors")

    def __init__(self) -> None:
        self.cause: Cause | None = None
        self.tensors: frozenset[int] = frozenset()  # the identities of what the value depends on

    def consume(self, gradient: Tensor) -> None:
        """Expire the value: called by its hook, when a backward pass goes through it."""
        self.cause = Cause(Reason.CONSUMED)


def track(chain: Any, expiry: Expiry) -> None:
    """Register `expiry`, of a value of `chain`, for `expire` and for training steps."""
    transient = transient_of(chain)
    if transient.expiries is None:
        watch_chain(chain)
        transient.expiries = WeakSet()
    transient.expiries.add(expiry)


def live_of(chain: Any) -> list[Expiry]:
    """The expiries of the kept values of `chain`. A copy: another thread may add to them."""
    expiries = transient_of(chain).expiries
    references: Any = () if expiries is None else vars(expiries)["data"].copy()
    return [expiry for expiry in (reference() for reference in references) if expiry is not None]


def expire(chain: Any, reason: Reason, name: str = "") -> None:
    """Expire every kept value of `chain`, in all scopes and threads."""
    cause = Cause(reason, name)
    for expiry in live_of(chain):
        expiry.cause = expiry.cause or cause


def end_after_step(chain: Any, step: StepMade) -> None:
    """Expire the kept values of `chain` that depend on a tensor to which an optimizer wrote."""
    for expiry in live_of(chain):
        if expiry.cause is None and step.wrote_any(expiry.tensors):
            expiry.cause = Cause(Reason.STEP)


tell_of_steps(end_after_step)
