"""Values that end before anybody compares them: told from outside, to all scopes and threads."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from torch import Tensor

from paramdesc.caching.record import Cause, Reason
from paramdesc.chain.watched import StepMade, tell_of_steps, watch_chain

__all__ = ["Expiry", "expire", "track"]

LIVE = "_live"
"""The attribute of a chain that holds the expiries of its kept values: a `Live`."""


class Expiry:
    """Whether a kept value has ended. It knows neither the value nor the chain."""

    __slots__ = ("__weakref__", "cause", "tensors")

    def __init__(self) -> None:
        self.cause: Cause | None = None
        self.tensors: frozenset[int] = frozenset()  # the identities of what the value depends on

    def consume(self, gradient: Tensor) -> None:
        """A hook of the value: a backward pass has gone through it."""
        self.cause = Cause(Reason.CONSUMED)


class Live:
    """The expiries of the values that are kept of one chain, anywhere. A copy of it is empty."""

    __slots__ = ("expiries",)

    def __init__(self) -> None:
        self.expiries: WeakSet[Expiry] = WeakSet()

    def __deepcopy__(self, memo: dict[int, Any]) -> Live:
        return Live()

    def __reduce__(self) -> tuple[type[Live], tuple[()]]:
        return Live, ()


def track(chain: Any, expiry: Expiry) -> None:
    """Let `expire` and training steps reach the value of `chain` that `expiry` belongs to."""
    live: Live | None = chain.__dict__.get(LIVE)
    if live is None:
        live = chain.__dict__.setdefault(LIVE, Live())
        watch_chain(chain)
    live.expiries.add(expiry)


def expire(chain: Any, reason: Reason) -> None:
    """End every kept value of `chain`, in all scopes and threads."""
    live: Live | None = chain.__dict__.get(LIVE)
    if live is not None:
        cause = Cause(reason)
        for expiry in list(live.expiries):
            expiry.cause = expiry.cause or cause


def end_after_step(chain: Any, step: StepMade) -> None:
    """End the kept values of `chain` that depend on what an optimizer has written."""
    live: Live | None = chain.__dict__.get(LIVE)
    if live is None or not live.expiries:
        return
    for expiry in list(live.expiries):
        if expiry.cause is None and step.wrote_any(expiry.tensors):
            expiry.cause = Cause(Reason.STEP)


tell_of_steps(end_after_step)
