"""Scopes whose end was never run: an interrupt has come right before it.

Python runs a signal handler, which raises KeyboardInterrupt, when a function begins: also when
`__exit__` does, before its first line. No code in it can prevent that. So a scope knows the
frame that has opened it, and where in its code, and the next entry or exit tells whether the
block around it, or the call of the model, is over.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dis import opmap
from types import FrameType
from typing import Any

__all__ = ["ended_before", "ended_inside", "remember_opener"]

_OPENS_BLOCK = {opmap[name] for name in ("BEFORE_WITH", "SETUP_WITH") if name in opmap}
_SUSPENDS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def remember_opener(scope: Any, frame: FrameType) -> None:
    """`scope` is opened in `frame`, where that stands now."""
    scope.frame, scope.place = frame, frame.f_lasti


def ended_before(scopes: tuple[Any, ...], opening: Any) -> list[Any]:
    """Those of the open `scopes` that are over when `opening` is opened, innermost first."""
    known = [scope for scope in scopes if scope.frame is not None]
    if not known:
        return []
    same = [s for s in known if s.frame is opening.frame and s.place == opening.place]
    ended: list[Any] = []
    if same and is_block(same[0]):
        # the same `with`, in the same call: the block was left, and with it those inside
        ended += [same[0], *ended_inside(scopes, same[0])]
    running = set(map(id, frames_from(opening.frame, {id(scope.frame) for scope in known})))
    gone = [scope for scope in known if id(scope.frame) not in running and scope not in ended]
    if gone:  # these are rare, and the frames of other threads many
        for frame in sys._current_frames().values():
            running.update(map(id, frames_from(frame, {id(scope.frame) for scope in gone})))
        ended += [s for s in gone if id(s.frame) not in running and ends_with_frame(s)]
    return [scope for scope in reversed(scopes) if scope in ended]


def ended_inside(scopes: tuple[Any, ...], scope: Any) -> list[Any]:
    """Those of the open `scopes` whose blocks stand in the block of `scope`, in the same call."""
    inner = scopes[scopes.index(scope) + 1 :] if scope in scopes and is_block(scope) else ()
    return [other for other in inner if other.frame is scope.frame and is_block(other)]


def frames_from(frame: FrameType | None, wanted: set[int]) -> Iterator[FrameType]:
    """`frame` and its callers, until all that are `wanted` are met."""
    wanted = set(wanted)
    while frame is not None and wanted:
        wanted.discard(id(frame))
        yield frame
        frame = frame.f_back


def is_block(scope: Any) -> bool:
    """Whether a `with` statement has opened it, and not a call of `__enter__`."""
    frame = scope.frame
    return frame is not None and frame.f_code.co_code[scope.place] in _OPENS_BLOCK


def ends_with_frame(scope: Any) -> bool:
    """Whether it is over when its frame is in no stack: that of a generator may wait elsewhere."""
    if scope.frame.f_code.co_flags & _SUSPENDS:
        return False
    return bool(scope.is_call) or is_block(scope)
