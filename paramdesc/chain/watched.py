"""Passes the steps of optimizers on to the chains that may depend on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from paramdesc.torch_internals.optimizers import StepMade, on_step

__all__ = ["StepMade", "tell_of_steps", "tell_of_whole_steps", "watch_chain", "watched_chains"]

_CHAINS: dict[int, ref[Any]] = {}  # by identity; removed when the chain is freed
_LISTENERS: list[Callable[[Any, StepMade], None]] = []
_LISTENERS_TO_ALL: list[Callable[[list[Any], StepMade], None]] = []


def tell_of_steps(listener: Callable[[Any, StepMade], None]) -> None:
    """Call `listener(chain, step)` for each watched chain, after each step of any optimizer."""
    _LISTENERS.append(listener)


def tell_of_whole_steps(listener: Callable[[list[Any], StepMade], None]) -> None:
    """Call `listener(chains, step)` with all watched chains, after each outermost step."""
    _LISTENERS_TO_ALL.append(listener)


def watch_chain(chain: Any) -> None:
    """Watch `chain` from now on, as long as it exists."""
    key = id(chain)
    if key not in _CHAINS:
        _CHAINS[key] = ref(chain, lambda _: _CHAINS.pop(key, None))
        on_step(tell_chains)


def watched_chains() -> list[Any]:
    """The watched chains that still exist."""
    found = (reference() for reference in _CHAINS.copy().values())
    return [chain for chain in found if chain is not None]


def tell_chains(step: StepMade) -> None:
    chains = watched_chains()
    for chain in chains:
        for listener in _LISTENERS:
            listener(chain, step)
    if step.is_whole:
        for whole_listener in _LISTENERS_TO_ALL:
            whole_listener(chains, step)
