"""Counts the references to the tensors of a module, to know whether anything else has one."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["ALONE", "count_references"]


def count_references(state: dict[str, Any], tensor_name: str) -> int:
    """How many references there are to a tensor of a module. Zero if it has none of that name.

    Args:
        state: the attributes of the module.
    """
    holder = state["_parameters"]
    if holder.get(tensor_name) is None:
        holder = getattr(state["_buffers"], "__wrapped__", state["_buffers"])
    return sys.getrefcount(holder[tensor_name]) if tensor_name in holder else 0


ALONE = count_references({"_parameters": {"one": object()}, "_buffers": {}}, "one")
"""The count for a single reference. It depends on the version of Python."""
