"""The rows of the table, from what four processes have found."""

from __future__ import annotations

from typing import Any

from tests.distributed.data_parallel.cases import (
    AGAIN,
    DIVIDED,
    LATE,
    LATE_AND_SEVERAL,
    REPLICATED,
    SHARDED,
)
from tests.distributed.table import Rows

__all__ = ["CLOSE", "rows_of"]

CLOSE = 1e-6
CLOSE_IN_BFLOAT16 = 2e-2
KINDS = {
    "none": "{}",
    "cached": "{}, `cached`",
    "auto": "{}, `auto_cache`",
    "batched": "{}, `batched=True`",
    "deferred": "{}, `deferred=True`",
}


def rows_of(section: str, found: dict[Any, Any]) -> Rows:
    """The rows of a section: what has come out for each title, with each kind of scope."""
    rows: Rows = {}
    titles = list(REPLICATED) if section == "DDP" else [*SHARDED, AGAIN, LATE, LATE_AND_SEVERAL]
    for title in titles:
        for kind, pattern in KINDS.items():
            ours = found.get((title, "paramdesc", kind))
            if ours is not None:
                theirs = found.get((title, "torch", kind))
                cells = {"torch": said_of(theirs, title), "paramdesc": said_of(ours, title)}
                rows[pattern.format(title)] = cells
    if section == "DDP":
        for size in (2, 4):
            for case in ("cached", "deferred"):
                title = KINDS[case].format(DIVIDED.format(size))
                result = found["divided", size, case]
                share = f"equal to one process; each evaluates 1 of {size} weights"
                rows[title] = {
                    "torch": "-",
                    "paramdesc": share if is_share(result) else str(result),
                }
    return rows


def is_share(result: Any) -> bool:
    """Whether each process has evaluated its part, with the right numbers."""
    return isinstance(result, dict) and result["distance"] < CLOSE


def said_of(result: Any, title: str) -> str:
    """The words for an outcome."""
    if result is None:
        return "-"
    if isinstance(result, str):
        refusals = ("DeferredGradientError", "ShardedModuleError")
        return "refused" if result.startswith(refusals) else "error"
    distance, counts = result
    is_rough = "bfloat16" in title
    if not distance < (CLOSE_IN_BFLOAT16 if is_rough else CLOSE):
        return f"differs by {distance:.0e}"
    equal = "equal to one process" + (" up to bfloat16" if is_rough else "")
    if not counts:
        return equal
    misses, hits = counts[0]
    return f"{equal}; {misses} evaluations for {misses + hits} reads"
