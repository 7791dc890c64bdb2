"""A forked process never waits for a lock that a thread of its parent holds."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from paramdesc.torch_internals.locks import ProcessLock
from tests.caching import fork_scripts
from tests.caching.forking import run_alone

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")


@pytest.mark.parametrize(
    "script",
    [
        fork_scripts.auto_cached,
        fork_scripts.persistent,
        fork_scripts.forked_inside_of_an_evaluation,
        fork_scripts.first_entry,
        fork_scripts.scripting,
        fork_scripts.grandchild,
        fork_scripts.threads_of_a_child,
        fork_scripts.forked_workers,
        fork_scripts.spawned_workers,
        fork_scripts.spawned,
    ],
    ids=lambda script: script.__name__,
)
def test_a_child_reads_while_a_thread_of_the_parent_evaluates(script: Callable[[], None]) -> None:
    run_alone(script)


def test_within_one_process_the_lock_is_one() -> None:
    lock = ProcessLock()
    seen: list[bool] = []
    with lock(), lock():
        other = threading.Thread(target=lambda: seen.append(lock().acquire(blocking=False)))
        other.start()
        other.join()
    assert seen == [False]
    assert lock() is lock()
