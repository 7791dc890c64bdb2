"""What pickles of earlier versions look for in `paramdesc.scopes`, and what else was there."""

from paramdesc.caching.active import (
    _SCOPES,
    RerunScope,
    active_scopes,
    close_innermost,
    find_scope,
    forget,
    open_scope,
    rerun,
)
from paramdesc.caching.scopes import AUTO, Scope
from paramdesc.caching.traced_scopes import TRACED, OpenScopes

__all__ = [
    "AUTO",
    "TRACED",
    "_SCOPES",
    "OpenScopes",
    "RerunScope",
    "Scope",
    "active_scopes",
    "close_innermost",
    "find_scope",
    "forget",
    "open_scope",
    "rerun",
]
