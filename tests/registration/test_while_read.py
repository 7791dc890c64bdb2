"""Maps are added, removed and replaced by one thread while others read."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from tests.helpers import Double, linear


class Slow(Double):
    """`2 X`; one evaluation stops inside until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.go = threading.Event(), threading.Event()
        self.is_slow = False

    def forward(self, X: Tensor) -> Tensor:
        if self.is_slow:
            self.is_slow = False
            self.inside.set()
            assert self.go.wait(60)
        return 2 * X


class Negative(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return -X

    def right_inverse(self, X: Tensor) -> Tensor:
        return -X


def add(layer: Any) -> None:
    P.register_parametrization(layer, "weight", Negative())


def add_through_the_chain(layer: Any) -> None:
    layer.parametrizations.weight.append(Negative())


def put_first(layer: Any) -> None:
    layer.parametrizations.weight.insert(0, Negative(), keep_value=False)


def replace(layer: Any) -> None:
    layer.parametrizations.weight[0] = Negative()


def delete(layer: Any) -> None:
    del layer.parametrizations.weight[1]


def remove(layer: Any) -> None:
    P.remove_parametrizations(layer, "weight")


def remove_to_the_original(layer: Any) -> None:
    P.remove_parametrizations(layer, "weight", leave_parametrized=False)


def parametrize_another(layer: Any) -> None:
    P.register_parametrization(layer, "bias", Double())


def parametrize_the_original(layer: Any) -> None:
    P.register_parametrization(layer.parametrizations.weight, "original", torch.neg)


def fail(layer: Any) -> None:
    def bad(X: Tensor) -> Tensor:
        raise ValueError("bad map")

    with pytest.raises(ValueError, match="bad map"):
        P.register_parametrization(layer, "weight", bad)


CHANGES = [
    add,
    add_through_the_chain,
    put_first,
    replace,
    delete,
    remove,
    remove_to_the_original,
    parametrize_another,
    parametrize_the_original,
    fail,
]


@contextmanager
def auto(layer: nn.Module) -> Iterator[None]:
    P.auto_cache(layer)
    yield


@contextmanager
def hooked(layer: nn.Module) -> Iterator[None]:
    """The chain is called, as a module."""
    chain: Any = layer.parametrizations.weight  # type: ignore[union-attr]
    handle = chain.register_forward_hook(lambda *_: None)
    yield
    handle.remove()


WAYS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda layer: nullcontext(),
    "scope": lambda layer: P.cached(layer),
    "persistent": lambda layer: P.cached(layer, persistent=True),
    "deferred": lambda layer: P.cached(layer, deferred=True),
    "auto_cache": auto,
    "hooks": hooked,
}


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_reader_gets_the_value_of_before_or_after(
    change: Callable[[Any], None], way: str, gradients: bool
) -> None:
    slow = Slow()
    layer = linear(slow).eval()
    P.register_parametrization(layer, "weight", Negative())
    before = layer.weight.detach().clone()
    seen: list[Tensor] = []

    def read() -> None:
        with WAYS[way](layer), torch.set_grad_enabled(gradients):
            seen.append(layer.weight.detach().clone())

    slow.is_slow = True
    thread = threading.Thread(target=read)
    thread.start()
    assert slow.inside.wait(60)
    change(layer)
    slow.go.set()
    thread.join(60)
    (value,) = seen
    if change is remove:
        return  # it gives the Parameter that the reader has in hand other data, as torch does
    assert any(torch.equal(value, right) for right in (before, layer.weight))


@contextmanager
def eager_switching() -> Iterator[None]:
    """Threads take turns as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def double(X: Tensor) -> Tensor:
    """Without an inverse: the Parameter, which readers have in hand, keeps its data."""
    return 2 * X


def on_and_off(layer: nn.Linear) -> None:
    P.register_parametrization(layer, "weight", double)
    P.register_parametrization(layer, "weight", torch.neg)
    P.remove_parametrizations(layer, "weight", leave_parametrized=False)


def on_and_off_of_a_buffer(module: nn.Module) -> None:
    P.register_parametrization(module, "weight", double)
    P.remove_parametrizations(module, "weight", leave_parametrized=False)


def failing(layer: nn.Linear) -> None:
    def bad(X: Tensor) -> Tensor:
        raise ValueError("bad map")

    with pytest.raises(ValueError, match="bad map"):
        P.register_parametrization(layer, "weight", bad)


def buffered() -> nn.Module:
    module = nn.Module()
    module.register_buffer("weight", torch.ones(3, 3))
    return module


@pytest.mark.parametrize("in_scope", [False, True])
@pytest.mark.parametrize(
    ("make", "change"),
    [(linear, failing), (lambda: nn.Linear(3, 3), on_and_off), (buffered, on_and_off_of_a_buffer)],
    ids=["fails", "parameter", "buffer"],
)
def test_readers_never_meet_a_tensor_that_is_not_there(
    make: Callable[[], Any], change: Callable[[Any], None], in_scope: bool
) -> None:
    module = make()
    original = module.weight.detach().clone()
    right = [original, 2 * original, -2 * original]
    errors: list[BaseException] = []
    is_over = threading.Event()

    def read() -> None:
        try:
            while not is_over.is_set():
                with P.cached() if in_scope else nullcontext(), torch.no_grad():
                    value = module.weight
                    assert any(torch.equal(value, one) for one in right)
        except BaseException as error:  # shown by the test's own thread
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    with eager_switching():
        for reader in readers:
            reader.start()
        for _ in range(60):
            change(module)
            if errors:
                break
        is_over.set()
        for reader in readers:
            reader.join(60)
    assert errors == []
