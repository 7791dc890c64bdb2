"""One piece of work in several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

THREADS = 8
TIMEOUT = 60


def in_threads(work: Callable[[], Any], *errors: type[BaseException]) -> list[Any]:
    """What `work` gives in threads that begin at once, or what it raises, if of these `errors`."""
    barrier = threading.Barrier(THREADS)

    def begin() -> Any:
        barrier.wait(TIMEOUT)
        try:
            return work()
        except errors as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(begin) for _ in range(THREADS)]
        return [future.result(TIMEOUT) for future in futures]
