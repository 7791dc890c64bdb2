"""Values that end before anybody compares them: told from outside, to all scopes and threads."""

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
    """Whether a kept value has ended. It knows neither the value nor the chain."""

    __slots__ = ("__weakref__", "cause", "tensors")

    def __init__(self) -> None:
        self.cause: Cause | None = None
        self.tensors: frozenset[int] = frozenset()  # the identities of what the value depends on

    def consume(self, gradient: Tensor) -> None:
        """A hook of the value: a backward pass has gone through it."""
        self.cause = Cause(Reason.CONSUMED)


def track(chain: Any, expiry: Expiry) -> None:
    """Let `expire` and training steps reach the value of `chain` that `expiry` belongs to."""
    watch_chain(chain)
    transient = transient_of(chain)
    if transient.expiries is None:
        transient.expiries = WeakSet()
    transient.expiries.add(expiry)


def live_of(chain: Any) -> list[Expiry]:
    """The expiries of what is kept of `chain` now; another thread may add to them."""
    expiries = transient_of(chain).expiries
    references: Any = () if expiries is None else vars(expiries)["data"].copy()
    return [expiry for expiry in (reference() for reference in references) if expiry is not None]


def expire(chain: Any, reason: Reason, name: str = "") -> None:
    """End every kept value of `chain`, in all scopes and threads."""
    cause = Cause(reason, name)
    for expiry in live_of(chain):
        expiry.cause = expiry.cause or cause


def end_after_step(chain: Any, step: StepMade) -> None:
    """End the kept values of `chain` that depend on what an optimizer has written."""
    for expiry in live_of(chain):
        if expiry.cause is None and step.wrote_any(expiry.tensors):
            expiry.cause = Cause(Reason.STEP)


tell_of_steps(end_after_step)
