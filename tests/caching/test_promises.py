"""What the cache of torch's engine gets wrong and that of paramdesc does not."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize as torch_engine

import paramdesc as P
from tests.helpers import Exp


class Engine:
    """One of the two engines, by the names that both have."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def linear(self) -> Any:
        return self.module.register_parametrization(nn.Linear(2, 2), "weight", Exp())

    def cached(self) -> Any:
        return self.module.cached()


def returns_the_new_weight_after_a_step(engine: Engine) -> None:
    linear = engine.linear()
    optimizer = torch.optim.SGD(linear.parameters(), lr=1.0)
    with engine.cached():
        torch.autograd.backward(linear.weight.sum())
        optimizer.step()
        torch.testing.assert_close(linear.weight, linear.parametrizations.weight.original.exp())


def returns_the_new_weight_after_an_assignment(engine: Engine) -> None:
    linear = engine.linear()
    with engine.cached():
        assert linear.weight is not None
        linear.weight = torch.full((2, 2), 5.0)
        torch.testing.assert_close(linear.weight.detach(), torch.full((2, 2), 5.0))


def returns_the_new_weight_after_load_state_dict(engine: Engine) -> None:
    linear, other = engine.linear(), engine.linear()
    with engine.cached():
        assert linear.weight is not None
        linear.load_state_dict(other.state_dict())
        torch.testing.assert_close(linear.weight, other.weight)


def returns_the_new_dtype_after_double(engine: Engine) -> None:
    linear = engine.linear()
    with engine.cached():
        assert linear.weight is not None
        assert linear.double().weight.dtype == torch.float64


def gives_functional_call_its_own_weight(engine: Engine) -> None:
    linear = engine.linear()
    name = "parametrizations.weight.original"
    with engine.cached():
        results = [
            torch.func.functional_call(
                linear, {name: torch.full((2, 2), value), "bias": torch.zeros(2)}, torch.ones(1, 2)
            )
            for value in (0.0, 1.0)
        ]
    assert not torch.equal(*results)


def keeps_the_gradient_after_a_read_without(engine: Engine) -> None:
    linear = engine.linear()
    with engine.cached():
        with torch.no_grad():
            assert linear.weight is not None
        torch.autograd.backward(linear.weight.sum())
    assert linear.parametrizations.weight.original.grad is not None


def leaves_no_low_precision_outside_of_autocast(engine: Engine) -> None:
    linear = engine.module.register_parametrization(nn.Linear(2, 2), "weight", Squared())
    with engine.cached():
        with torch.autocast("cpu", torch.bfloat16):
            assert linear.weight is not None
        assert linear.weight.dtype == torch.float32


class Squared(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X @ X


def lets_threads_train_apart(engine: Engine) -> None:
    linear = engine.linear()
    values: list[Tensor] = []

    def read() -> None:
        with engine.cached():
            values.append(linear.weight)

    with engine.cached():
        read_here = linear.weight
        thread = threading.Thread(target=read)
        thread.start()
        thread.join(timeout=60)
    for value in (read_here, *values):
        torch.autograd.backward(value.sum())


def gives_a_copy_its_own_weight(engine: Engine) -> None:
    linear = engine.linear()
    with engine.cached():
        assert linear.weight is not None
        twin = copy.deepcopy(linear)
        with torch.no_grad():
            twin.parametrizations.weight.original.add_(1)
        torch.testing.assert_close(twin.weight, twin.parametrizations.weight.original.exp())


def gives_short_lived_modules_their_own_weight(engine: Engine) -> None:
    with engine.cached():
        for _ in range(50):
            linear = engine.linear()
            torch.testing.assert_close(linear.weight, linear.parametrizations.weight.original.exp())
            del linear
            gc.collect()  # torch's class holds the module in a cycle


def leaves_no_fake_tensor_after_an_export(engine: Engine) -> None:
    linear = engine.linear()
    with engine.cached():
        torch.export.export(linear, (torch.ones(1, 2),), strict=False)
        assert type(linear.weight.detach()) is Tensor


def survives_two_backward_passes(engine: Engine) -> None:
    linear = engine.linear()
    with engine.cached():
        for _ in range(2):
            torch.autograd.backward(linear.weight.sum())


def can_be_traced(engine: Engine) -> None:
    linear = engine.linear()
    with engine.cached():
        traced: Any = torch.jit.trace(linear, torch.ones(1, 2))  # type: ignore[no-untyped-call]
        expected = linear(torch.ones(1, 2))
    torch.testing.assert_close(traced(torch.ones(1, 2)), expected)


PROMISES = [
    returns_the_new_weight_after_a_step,
    returns_the_new_weight_after_an_assignment,
    returns_the_new_weight_after_load_state_dict,
    returns_the_new_dtype_after_double,
    gives_functional_call_its_own_weight,
    keeps_the_gradient_after_a_read_without,
    leaves_no_low_precision_outside_of_autocast,
    lets_threads_train_apart,
    gives_a_copy_its_own_weight,
    gives_short_lived_modules_their_own_weight,
    leaves_no_fake_tensor_after_an_export,
    survives_two_backward_passes,
    can_be_traced,
]


@pytest.mark.filterwarnings("ignore:.torch.jit")  # its end is announced, in a class that changes
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_the_cache_cannot_lie_where_torchs_does(promise: Callable[[Engine], None]) -> None:
    promise(Engine(P))
    with pytest.raises((AssertionError, RuntimeError)):
        promise(Engine(torch_engine))
