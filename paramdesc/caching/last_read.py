"""The chain that was read last outside of scopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

__all__ = ["LAST", "remembered"]

LAST: list[tuple[Callable[[], Any], Callable[[], Any]]] = [(lambda: None, lambda: None)]
"""The chain that was read last outside of scopes, by any thread, and the memory of its value,
while they live.
"""


def remembered(chain: Any, value: Any) -> Any:
    """`value`, known as the last one of `chain` that no open scope keeps."""
    try:  # noqa: SIM105  # twice as fast as suppress
        LAST[0] = ref(chain), ref(value.untyped_storage())
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        pass  # no tensor, or one without memory of its own
    return value
