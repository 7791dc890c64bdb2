"""What another thread changes during an evaluation is noticed by later reads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from tests.caching.dependencies.kinds import weighing
from tests.caching.persistent.layers import fresh
from tests.helpers import Double, chain_of, original_of

TIMEOUT = 20


class Stopping(nn.Module):
    """Multiplies by what it holds, and stops right after that while `is_slow`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.number = 1.0
        self.several = [[torch.ones(())]]
        self.inner = nn.Linear(1, 1).requires_grad_(False)
        self.inside, self.go = threading.Event(), threading.Event()
        self.is_slow = False

    def forward(self, X: Tensor) -> Tensor:
        Y = X * self.get_buffer("scale") * self.number * self.several[0][0] * self.inner.weight
        if self.is_slow:
            self.inside.set()
            assert self.go.wait(TIMEOUT)
        return Y.clone()


def load(layer: nn.Module) -> None:
    layer.load_state_dict({name: value + 2 for name, value in layer.state_dict().items()})


def step(layer: nn.Module) -> None:
    original_of(layer).grad = torch.ones(3, 3)
    torch.optim.SGD([original_of(layer)], lr=1.0, fused=True).step()


CHANGES: dict[str, Callable[[Any], object]] = {
    "buffer": lambda m: chain_of(m)[0].scale.add_(2),
    "new buffer": lambda m: setattr(chain_of(m)[0], "scale", torch.tensor(3.0)),
    "attribute": lambda m: setattr(chain_of(m)[0], "number", 5.0),
    "tensor in a list": lambda m: chain_of(m)[0].several[0][0].add_(2),
    "list": lambda m: chain_of(m)[0].several.__setitem__(0, [torch.tensor(3.0)]),
    "parameter of a module in the map": lambda m: chain_of(m)[0].inner.weight.add_(1),
    "load_state_dict": load,
    "original": lambda m: original_of(m).add_(1),
    "uncounted write to the original": lambda m: original_of(m).data.add_(1),
    "fused step": step,
    "new original": lambda m: setattr(chain_of(m), "original", nn.Parameter(torch.ones(3, 3))),
    "replaced map": lambda m: chain_of(m).__setitem__(0, Double().eval()),
    "another map": lambda m: chain_of(m).append(Double().eval()),
    "invalidate": P.invalidate,
}


def lasting(layer: Any) -> Callable[[], Tensor]:
    kept: Any = P.cached(layer, persistent=True)
    return kept(torch.no_grad()(layer.forward))  # type: ignore[no-any-return]


def automatic(layer: Any) -> Callable[[], Tensor]:
    P.auto_cache(layer)
    return torch.no_grad()(layer.__call__)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [lasting, automatic])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_during_an_evaluation_is_noticed(name: str, kind: Any) -> None:
    stopping = Stopping()
    layer = weighing(stopping)
    read = kind(layer)
    stopping.is_slow = True
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert stopping.inside.wait(TIMEOUT)
    stopping.is_slow = False
    with torch.no_grad():
        CHANGES[name](layer)
    stopping.go.set()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(read(), fresh(layer), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [lasting, automatic])
def test_a_request_while_a_state_dict_is_half_loaded_leaves_nothing_behind(kind: Any) -> None:
    stopping = Stopping()
    layer = weighing(stopping)
    read = kind(layer)
    thread = threading.Thread(target=read, daemon=True)

    def request(*_: Any) -> None:
        thread.start()
        assert stopping.inside.wait(TIMEOUT)

    hooked: Any = stopping
    hooked.register_load_state_dict_pre_hook(request)  # the original is loaded by then
    stopping.is_slow = True
    load(layer)
    stopping.is_slow = False
    stopping.go.set()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    with torch.no_grad():
        torch.testing.assert_close(read(), fresh(layer), rtol=0, atol=0)
