"""Scripts that fork, for processes of their own: a fork takes all that the test process has."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers import ROOT, Double

SECONDS = 20.0
"""What a child may take that only reads a weight."""


class Slow(Double):
    """`2 X`; while `is_slow`, the evaluation stops inside until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.go = threading.Event(), threading.Event()

    is_slow = False

    def forward(self, X: Tensor) -> Tensor:
        if Slow.is_slow:
            self.inside.set()
            assert self.go.wait(60)
        return 2 * X


@contextmanager
def another_thread_inside(read: Callable[[], Any], slow: Slow) -> Iterator[None]:
    """Another thread is in an evaluation of `slow`, which `read` has begun."""
    Slow.is_slow = True
    thread = threading.Thread(target=read)
    thread.start()
    assert slow.inside.wait(60)
    Slow.is_slow = False
    try:
        yield
    finally:
        slow.go.set()
        thread.join(60)


def child_ends(work: Callable[[], Any]) -> bool:
    """Whether a forked child does `work` in bounded time, without an error."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def run_alone(function: Callable[[], None]) -> None:
    """Run `function`, of a module of tests, in a fresh process that imports what it needs."""
    code = f"from {function.__module__} import {function.__name__} as run; run()"
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-W", "ignore", "-c", code]
    subprocess.run(command, env=environment, check=True, timeout=300)


@torch.no_grad()
def weight_of(layer: nn.Linear) -> Tensor:
    return layer.weight
