"""The open scopes as compiled code sees them: torch.compile cannot follow a context variable."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["TRACED", "OpenScopes"]


class OpenScopes:
    """Whether eager code has opened a scope in this thread that is still open.

    Other tasks of the thread see this too, so compiled code must still look for its scope. It reads
    only `any` and `disables`, so that one more scope does not cause a recompilation.
    """

    def __init__(self) -> None:
        self.any = False
        self.disables = False  # whether one of them switches chains off
        self.scopes: set[Any] = set()

    def add(self, scope: Any) -> None:
        self.scopes.add(scope)
        self.note()

    def discard(self, scope: Any) -> None:
        self.scopes.discard(scope)
        self.note()

    def note(self) -> None:
        self.any = bool(self.scopes)
        self.disables = any(scope.disables for scope in self.scopes)


class TracedScopes(threading.local):
    """The open scopes of one thread, for compiled code.

    `scopes` are those that the compiled code itself has opened. They are opened and closed within
    one call, so other tasks never see them.
    """

    def __init__(self) -> None:
        self.scopes: tuple[Any, ...] = ()
        self.opened = OpenScopes()


TRACED = TracedScopes()
