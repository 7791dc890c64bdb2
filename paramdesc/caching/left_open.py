"""Finds scopes that an interrupt has left open.

Python may run a signal handler, which raises KeyboardInterrupt, when `__exit__` is called and
before its first line. No code in `__exit__` can prevent that. So a scope remembers the frame that
opened it, and the instruction there. The next entry or exit then finds out whether the block of
the scope, or the call of its model, is over.
"""

from __future__ import annotations

import dis
import functools
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

__all__ = ["left_open", "remember_opener"]

_OPENS_BLOCK = ("BEFORE_WITH", "SETUP_WITH")
_SUSPENDS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def remember_opener(scope: Any, frame: FrameType) -> None:
    """Remember that `scope` is opened in `frame`, at its present instruction."""
    scope.frame, scope.place = frame, frame.f_lasti


def left_open(scopes: tuple[Any, ...], frame: FrameType | None) -> list[Any]:
    """The open scopes among `scopes` whose block is over, seen from `frame`; innermost first."""
    known = [scope for scope in scopes if scope.frame is not None]
    if not known:
        return []
    running = frames_from(frame, {id(scope.frame) for scope in known})
    ended = [scope for scope in known if id(scope.frame) in running and has_left_block(scope)]
    gone = [scope for scope in known if id(scope.frame) not in running and ends_with_frame(scope)]
    if gone:  # rare, and the frames of all other threads must be searched
        wanted = {id(scope.frame) for scope in gone}
        for other in sys._current_frames().values():
            running |= frames_from(other, wanted)
        ended += [scope for scope in gone if id(scope.frame) not in running]
    return [scope for scope in reversed(scopes) if scope in ended] if ended else ended


def frames_from(frame: FrameType | None, wanted: set[int]) -> set[int]:
    """The identities in `wanted` that belong to `frame` or one of its callers."""
    found: set[int] = set()
    while frame is not None and len(found) < len(wanted):
        if id(frame) in wanted:
            found.add(id(frame))
        frame = frame.f_back
    return found


def has_left_block(scope: Any) -> bool:
    """Whether the frame of `scope`, which is running, has left the block of the scope."""
    frame = scope.frame
    return not scope.is_call and not may_be_inside(frame.f_code, scope.place, frame.f_lasti)


def ends_with_frame(scope: Any) -> bool:
    """Whether `scope` is over if its frame is on no stack: a generator may be suspended."""
    code = scope.frame.f_code
    if code.co_flags & _SUSPENDS:
        return False
    return scope.is_call or not may_be_inside(code, scope.place, -1)


@functools.lru_cache(1024)
def may_be_inside(code: CodeType, place: int, here: int) -> bool:
    """Whether `code`, when it is at `here`, is in the block of the `with` at `place`.

    True also where that is unknown, as for a direct call of `__enter__`.
    """
    opener = next((step for step in dis.get_instructions(code) if step.offset == place), None)
    if opener is None or opener.opname not in _OPENS_BLOCK:
        return True
    entries: Any = getattr(dis.Bytecode(code), "exception_entries", None)
    if (
        entries is None
    ):  # Python 3.10: the block lies between the `with` and what handles its errors
        return place < here < int(opener.argval)
    handler = next(handlers_of(entries, place + 2), None)
    return handler is None or handler in handlers_of(entries, here)


def handlers_of(entries: Any, offset: int) -> Iterator[int]:
    """The handlers of an exception at `offset`, from the innermost to the outermost."""
    seen: set[int] = set()
    while True:
        found = [entry.target for entry in entries if entry.start <= offset < entry.end]
        if not found or found[0] in seen:
            return
        offset = found[0]
        seen.add(offset)
        yield offset
