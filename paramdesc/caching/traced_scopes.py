"""What compiled code knows of scopes: torch.compile cannot follow a context variable."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["TRACED", "OpenScopes"]


class OpenScopes:
    """Whether eager code has a scope open that it opened in this thread.

    Other tasks of the thread see it too: it tells compiled code where to look, and not what
    it finds. Only `any` is read there, so that one scope more compiles nothing anew.
    """

    def __init__(self) -> None:
        self.any = False
        self.scopes: set[Any] = set()

    def add(self, scope: Any) -> None:
        self.scopes.add(scope)
        self.any = True

    def discard(self, scope: Any) -> None:
        self.scopes.discard(scope)
        self.any = bool(self.scopes)


class TracedScopes(threading.local):
    """What compiled code knows of scopes: torch.compile cannot follow a context variable.

    `scopes` are those that it has opened itself. They open and end within one call of that
    code, so no other task comes between.
    """

    def __init__(self) -> None:
        self.scopes: tuple[Any, ...] = ()
        self.opened = OpenScopes()


TRACED = TracedScopes()
