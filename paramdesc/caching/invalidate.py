"""Reporting writes that cannot be detected."""

from __future__ import annotations

from paramdesc.caching.expiry import expire
from paramdesc.caching.programs import is_scripted_list
from paramdesc.caching.record import Reason
from paramdesc.caching.targets import Target, flatten, get_covered
from paramdesc.chain.steps import say_stepped
from paramdesc.chain.watched import watched_chains

__all__ = ["invalidate"]


def invalidate(*targets: Target) -> None:
    """Discard the cached values of `targets`, so that the next read evaluates them again.

    Call it after a write that cannot be detected, such as a collective on a GPU, or a write to a
    NumPy array that shares memory with a tensor. The guide to the cache (docs/guide/cache.md) lists
    all cases. Values are discarded in every open scope of every thread, including persistent ones.
    For maps with a warm start, the call counts as a training step.

    Args:
        targets: modules, `ParametrizationList`s, and sets or iterables of these, as in `cached`.
            Without targets, all cached values are discarded.

    Raises:
        TypeError: if a target is of another type.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Symmetric())
    >>> with cached(linear) as scope:
    ...     before = linear.weight
    ...     invalidate(linear)
    ...     linear.weight is before
    False
    """
    covered = get_covered(flatten(targets)) if targets else dict.fromkeys(watched_chains(), "")
    for chain in covered:
        if is_scripted_list(chain):
            chain.forget()
        else:
            expire(chain, Reason.INVALIDATED)
            say_stepped(chain)
