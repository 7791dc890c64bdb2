"""Finding the kept value of a chain that is current, and dropping those that are not."""

from __future__ import annotations

from typing import Any

import torch

from paramdesc.caching.entry import Entry
from paramdesc.caching.record import MODES, Cause, Reason
from paramdesc.caching.scopes import Scope
from paramdesc.torch_internals.mode import is_inference

__all__ = ["drop_stale", "is_kept", "serves_without_gradients"]


def is_kept(scope: Scope, chain: Any) -> bool:
    """Whether `scope` keeps a current value of `chain`. One that is not current is dropped."""
    entry = scope.entries.get(chain)
    if entry is None:
        return False
    cause = entry.why_stale()
    if cause is None or (scope.deferral is not None and serves_without_gradients(entry, cause)):
        return True
    drop_stale(scope, chain, entry, cause)
    return False


def serves_without_gradients(entry: Entry, cause: Cause) -> bool:
    """Whether a leaf is current except that gradients are off: a new evaluation would expire it."""
    if cause.reason is not Reason.GRAD_MODE or not entry.value.requires_grad or is_inference():
        return False
    with torch.enable_grad():
        return entry.why_stale() is None


def drop_stale(scope: Scope, chain: Any, entry: Entry, cause: Cause) -> None:
    """Free a value that cannot be used, unless it can be used again once the mode is back."""
    changed: Cause | None = cause
    if scope.lasts and cause.reason in MODES:
        # in a trace, a transform or a capture nothing can be compared
        is_known = cause.reason not in (Reason.OTHER_MODE, Reason.CAPTURE)
        changed = entry.why_stale(True) if is_known else None
        if changed is None:
            return
    entry.record.drop(changed)
    scope.entries.pop(chain, None)
