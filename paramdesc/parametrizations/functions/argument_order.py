"""The order of arguments of one-line functions: the module, the name, then those of the map."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

__all__ = ["name_first"]

F = TypeVar("F", bound=Callable[..., Any])


def name_first(*own: str) -> Callable[[F], F]:
    """Let a one-line function take the arguments of its map by position after the name.

    They used to come before the name. Calls in that order still work, and emit a DeprecationWarning
    that shows the line to write.

    Args:
        own: the names of these arguments, in order.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(module: Any, *args: Any, **kwargs: Any) -> Any:
            is_old = bool(args) and (not isinstance(args[0], str) or "name" in kwargs)
            is_renamed = "tensor_name" in kwargs
            named = dict(zip((*own, "name") if is_old else ("name", *own), args, strict=False))
            if is_renamed:
                kwargs["name"] = kwargs.pop("tensor_name")
            if len(args) > len(own) + 1 or named.keys() & kwargs.keys():
                return function(module, *args, **kwargs)  # raises
            named |= kwargs
            if is_old or is_renamed:
                warn(function.__name__, named)
            return function(module, **named)

        return cast(F, call)

    return decorate


def warn(function: str, named: dict[str, Any]) -> None:
    """Show the line to write."""
    shown = {key: value for key, value in named.items() if key != "name"}
    given = "".join(f", {key}={as_text(value)}" for key, value in shown.items())
    warnings.warn(
        "one-line functions take the module, then the name, then the arguments of the map. "
        f'Write {function}(module, "{named.get("name", "weight")}"{given}).',
        DeprecationWarning,
        stacklevel=3,
    )


def as_text(value: object) -> str:
    is_short = isinstance(value, (int, float, str, bool, type(None)))
    return repr(value) if is_short else "..."
