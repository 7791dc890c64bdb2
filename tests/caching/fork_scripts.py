"""What forks while another thread holds a lock: each function runs in a process of its own."""

from __future__ import annotations

import importlib
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import paramdesc
from paramdesc.torch_internals import script
from tests.caching.forking import Slow, another_thread_inside, child_ends, weight_of
from tests.helpers import Double, linear

# the attribute of that name of its folder is the class, for old pickles
cached_file: Any = importlib.import_module("paramdesc.caching.cached")


def expect(layer: nn.Linear) -> None:
    """The weight is what its map makes of the original."""
    original: Any = layer.parametrizations.weight.original  # type: ignore[union-attr]
    assert torch.equal(weight_of(layer), 2 * original.detach())


def auto_cached() -> None:
    slow = Slow()
    layer = linear(slow).eval()
    paramdesc.auto_cache(layer)
    with another_thread_inside(lambda: weight_of(layer), slow):
        assert child_ends(lambda: expect(layer))
    expect(layer)


def persistent() -> None:
    slow = Slow()
    layer = linear(slow).eval()
    scope = paramdesc.cached(layer, persistent=True)

    def read() -> None:
        with scope:
            expect(layer)

    with another_thread_inside(read, slow):
        assert child_ends(read)
    read()


def forked_inside_of_an_evaluation() -> None:
    """The thread that holds the lock forks, and both processes release it."""
    ended: list[bool] = []

    class Forking(Double):
        is_forking = False

        def forward(self, X: Tensor) -> Tensor:
            if Forking.is_forking:
                Forking.is_forking = False
                ended.append(child_ends(lambda: expect(layer)))
            return 2 * X

    layer = linear(Forking()).eval()
    paramdesc.auto_cache(layer)
    Forking.is_forking = True
    expect(layer)
    assert ended == [True]


def first_entry() -> None:
    layer = linear().eval()
    scope = paramdesc.cached(layer, persistent=True)

    def read() -> None:
        with scope:
            expect(layer)

    with held(cached_file._FIRST_ENTRY):
        assert child_ends(read)


def scripting() -> None:
    model = nn.Sequential(linear())
    x = torch.ones(1, 3)

    def compile_it() -> None:
        assert torch.equal(torch.jit.script(model)(x), model(x))
        assert not script._preparing

    script._preparing.add(-1)  # a thread that does not exist in the child
    try:
        assert child_ends(compile_it)
    finally:
        script._preparing.clear()
    compile_it()


class held:
    """Another thread holds `lock` inside."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.got, self.go = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.hold)

    def hold(self) -> None:
        with self.lock():
            self.got.set()
            self.go.wait(60)

    def __enter__(self) -> None:
        self.thread.start()
        assert self.got.wait(60)

    def __exit__(self, *exception: object) -> None:
        self.go.set()
        self.thread.join(60)


class Weights(Dataset[Tensor]):
    """Reads a parametrized weight for each item."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Tensor:
        return weight_of(self.layer).clone()


def workers(method: str) -> None:
    """The workers of a DataLoader start while a thread evaluates."""
    slow = Slow()
    layer = linear(Double() if method == "spawn" else slow).eval()
    paramdesc.auto_cache(layer)
    loader = DataLoader(Weights(layer), num_workers=2, multiprocessing_context=method, timeout=60)
    if method == "spawn":
        found = list(loader)
    else:
        with another_thread_inside(lambda: weight_of(layer), slow):
            found = list(loader)
    assert len(found) == 4
    assert all(torch.equal(weight[0], weight_of(layer)) for weight in found)


def forked_workers() -> None:
    workers("fork")


def spawned_workers() -> None:
    workers("spawn")


def grandchild() -> None:
    """A child's own threads hold locks when it forks again."""
    slow = Slow()
    layer = linear(slow).eval()
    paramdesc.auto_cache(layer)

    def fork_again() -> None:
        with another_thread_inside(lambda: weight_of(layer), slow):
            assert child_ends(lambda: expect(layer))

    assert child_ends(fork_again)


def threads_of_a_child() -> None:
    """In a child, too, one thread evaluates and the others wait for it."""
    slow = Slow()
    layer = linear(slow).eval()
    scope = paramdesc.auto_cache(layer)

    def serve() -> None:
        before = scope.misses
        readers = [threading.Thread(target=weight_of, args=[layer]) for _ in range(4)]
        with another_thread_inside(lambda: weight_of(layer), slow):
            for reader in readers:
                reader.start()
        for reader in readers:
            reader.join(60)
        assert scope.misses == before + 1

    assert child_ends(serve)


def spawned() -> None:
    """A persistent scope and an auto-cached model go to a spawned process without their locks."""
    layer = linear().eval()
    paramdesc.auto_cache(layer)
    scope = paramdesc.cached(layer, persistent=True)
    with scope:
        expect(layer)
    process = torch.multiprocessing.get_context("spawn").Process(
        target=read_there, args=[layer, scope]
    )
    process.start()
    process.join(120)
    assert process.exitcode == 0


def read_there(layer: nn.Linear, scope: Any) -> None:
    with scope:
        expect(layer)
