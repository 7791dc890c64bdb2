"""Activation checkpointing: the gradients of plain code, whatever scope is open when."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import (
    CheckpointError,
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    set_checkpoint_early_stop,
)

import paramdesc as P
from paramdesc.caching.active import active_scopes
from paramdesc.parametrizations import SpectralNorm, Symmetric
from paramdesc.torch_internals.checkpointing import Region
from tests.helpers import Double, Shift, chain_of

Run = Callable[[nn.Module, Tensor], Tensor]
Scopes = Callable[[], AbstractContextManager[Any]]

INPUT = torch.linspace(-1, 1, 12).reshape(4, 3)


class Exp(nn.Module):
    """Counts its evaluations; its derivative needs its result."""

    def __init__(self) -> None:
        super().__init__()
        self.count = [0]

    def forward(self, X: Tensor) -> Tensor:
        self.count[0] += 1
        return (X / 4).exp()


class Layer(nn.Module):
    """One parametrized linear map between nonlinearities, read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x.sin())
        y: Tensor = self.linear(x.tanh()).cos()
        return y


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors are small: threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def layer() -> Layer:
    torch.manual_seed(0)
    layer = Layer()
    for parametrization in (Symmetric(), Exp(), SpectralNorm(), Shift()):
        P.register_parametrization(layer.linear, "weight", parametrization)
    return layer


@pytest.fixture(params=[True, False], ids=["early stop", "no early stop"])
def early_stop(request: pytest.FixtureRequest) -> Iterator[bool]:
    with set_checkpoint_early_stop(request.param):
        yield request.param


def plain(layer: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = layer(x)
    return y


def reentrant(layer: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = checkpoint(layer, x, use_reentrant=True)
    return y


def not_reentrant(layer: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = checkpoint(layer, x, use_reentrant=False)
    return y


def with_a_scope_inside(run: Run) -> Run:
    def scoped(x: Tensor, *, layer: nn.Module) -> Tensor:
        with P.cached(layer):
            y: Tensor = layer(x)
        return y

    def run_scoped(layer: nn.Module, x: Tensor) -> Tensor:
        return run(partial(scoped, layer=layer), x)  # type: ignore[arg-type]

    return run_scoped


def three_times(layer: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = layer(layer(layer(x)))
    return y


def nested(layer: nn.Module, x: Tensor) -> Tensor:
    def two(x: Tensor) -> Tensor:
        return not_reentrant(layer, layer(not_reentrant(layer, x)))

    y: Tensor = checkpoint(two, x, use_reentrant=False)
    return y


def selective(layer: nn.Module, x: Tensor) -> Tensor:
    def policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        kept = operation in (torch.ops.aten.exp.default, torch.ops.aten.addmm.default)
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    contexts = partial(create_selective_checkpoint_contexts, policy)
    y: Tensor = checkpoint(layer, x, use_reentrant=False, context_fn=contexts)
    return y


def gradients(layer: nn.Module, loss: Tensor) -> list[Tensor]:
    layer.zero_grad()
    torch.autograd.backward(loss)
    return [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]


def loss_of(layer: nn.Module, run: Run, *, read_before: bool) -> Tensor:
    x = INPUT.clone().requires_grad_()
    y = plain(layer, x) if read_before else x
    return plain(layer, run(layer, run(layer, y))).square().sum()


RUNS: dict[str, tuple[Run, Run]] = {  # each with what it must be equal to
    "reentrant": (reentrant, plain),
    "not reentrant": (not_reentrant, plain),
    "nested": (nested, three_times),
    "selective": (selective, plain),
    "scope in reentrant": (with_a_scope_inside(reentrant), plain),
    "scope inside": (with_a_scope_inside(not_reentrant), plain),
}

PLACES: dict[str, tuple[Scopes, Scopes, Scopes]] = {  # around both passes, forward, backward
    "no scope": (nullcontext, nullcontext, nullcontext),
    "a scope around both": (P.cached, nullcontext, nullcontext),
    "backward outside": (nullcontext, P.cached, nullcontext),
    "backward in a scope": (nullcontext, nullcontext, P.cached),
    "a scope for each": (nullcontext, P.cached, P.cached),
    "scopes in a scope": (P.cached, P.cached, P.cached),
}


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("read_before", [True, False], ids=["read before", "not read before"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", RUNS)
def test_the_gradients_are_those_of_plain_code(
    name: str, place: str, read_before: bool, layer: Layer, early_stop: bool
) -> None:
    run, plain_run = RUNS[name]
    expected = gradients(layer, loss_of(layer, plain_run, read_before=read_before))
    around, forward, backward = PLACES[place]
    for _ in range(2):
        with around():
            with forward():
                loss = loss_of(layer, run, read_before=read_before)
            with backward():
                found = gradients(layer, loss)
        torch.testing.assert_close(found, expected)
    assert active_scopes() == ()


def exp_layer() -> tuple[Layer, list[int]]:
    layer = Layer()
    exp = Exp()
    P.register_parametrization(layer.linear, "weight", exp)
    exp.count[0] = 0
    return layer, exp.count


@pytest.mark.parametrize("is_inside", [True, False], ids=["backward inside", "backward outside"])
def test_a_scope_around_regions_evaluates_once(is_inside: bool) -> None:
    layer, count = exp_layer()
    with P.cached():
        loss = loss_of(layer, not_reentrant, read_before=True)
        assert count == [1]
        if is_inside:
            gradients(layer, loss)
    if not is_inside:
        gradients(layer, loss)
    assert count == [1]  # the second runs were given the value


def test_the_region_that_evaluated_does_so_again() -> None:
    layer, count = exp_layer()
    with P.cached():
        loss = loss_of(layer, not_reentrant, read_before=False)
        assert count == [1]
        gradients(layer, loss)
    assert count == [2]


def test_a_second_run_keeps_nothing_in_the_scope() -> None:
    layer, _ = exp_layer()
    with P.cached() as scope:
        loss = loss_of(layer, not_reentrant, read_before=True)
        kept = layer.linear.weight
        hits, misses = scope.hits, scope.misses
        gradients(layer, loss)
        assert (scope.hits, scope.misses) == (hits, misses)
        assert layer.linear.weight is not kept  # its graph is gone
        gradients(layer, layer.linear.weight.sum())


def test_the_graph_can_be_gone_through_twice() -> None:
    layer, _ = exp_layer()
    expected = gradients(layer, loss_of(layer, plain, read_before=True))
    with P.cached():
        loss = loss_of(layer, not_reentrant, read_before=True)
    for _ in range(2):
        layer.zero_grad()
        torch.autograd.backward(loss, retain_graph=True)
        found = [parameter.grad for parameter in layer.parameters()]
        torch.testing.assert_close(found, expected)


def test_a_second_backward_pass_in_one_scope_is_right() -> None:
    layer, _ = exp_layer()
    expected = gradients(layer, loss_of(layer, plain, read_before=True))
    for run in (reentrant, not_reentrant):
        with P.cached():
            for _ in range(3):
                found = gradients(layer, loss_of(layer, run, read_before=True))
                torch.testing.assert_close(found, expected)


def test_reads_in_several_modes_within_a_region() -> None:
    layer, _ = exp_layer()

    def region(x: Tensor) -> Tensor:
        y = layer(x)
        with torch.no_grad():
            y = y + layer.linear.weight.sum()
        with torch.autocast("cpu"):
            y = y + layer(x)
        z: Tensor = layer(y)
        return z

    check: Any = partial(checkpoint, use_reentrant=False)
    found = []
    for loss in (lambda: region(INPUT), lambda: check(region, INPUT)):
        with P.cached():
            assert layer.linear.weight.requires_grad
            value = loss().square().sum()
        found.append(gradients(layer, value))
    torch.testing.assert_close(*found)


def test_a_region_frees_what_it_holds() -> None:
    layer, _ = exp_layer()
    gc.disable()
    try:
        with P.cached():
            value = weakref.ref(layer.linear.weight)
            loss: Any = not_reentrant(layer, INPUT).sum()
            region: Any = weakref.ref(region_in_memory())
        assert value() is None  # what is held is a tensor without its graph
        assert len(region().reads) == 2
        del loss
        assert region() is None
        chain = weakref.ref(chain_of(layer.linear))
        del layer
        assert chain() is None
    finally:
        gc.enable()


def region_in_memory() -> Any:
    found = [x for x in gc.get_objects() if type(x) is Region]
    assert len(found) == 1
    return found[0]


def test_other_hooks_for_saved_tensors_leave_the_cache_alone() -> None:
    layer, count = exp_layer()
    expected = gradients(layer, loss_of(layer, plain, read_before=True))
    count[0] = 0
    with P.cached() as scope, save_on_cpu():
        loss = loss_of(layer, plain, read_before=True)
    assert count == [1]
    assert scope.misses == 1
    torch.testing.assert_close(gradients(layer, loss), expected)


def test_code_that_does_something_else_the_second_time_is_reported() -> None:
    layer = Layer()
    other = P.register_parametrization(nn.Linear(3, 3), "weight", Double())
    P.register_parametrization(layer.linear, "weight", Exp())
    runs = []

    def region(x: Tensor) -> Tensor:
        runs.append(1)
        y: Tensor = layer(x) if len(runs) == 1 else other(layer(other(x)))
        return y

    with P.cached():
        loss = checkpoint(region, INPUT, use_reentrant=False).sum()
    with pytest.raises(CheckpointError, match="different metadata|number of tensors"):
        torch.autograd.backward(loss)
