"""What would use or lose gradients that wait is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.errors import DeferredGradientError
from tests.caching.deferred.loops import INSIDE, accumulate, backward, batches, loss_of
from tests.caching.deferred.models import closing_over, layer, nested, originals, two_layers
from tests.helpers import Shift, chain_of, original_of


def test_a_backward_pass_after_the_scope_is_refused() -> None:
    linear = layer()
    with P.cached(linear, deferred=True):
        accumulate(linear)
        late = loss_of(linear(batches()[0]))
    before = original_of(linear).grad.clone()
    with pytest.raises(DeferredGradientError, match=INSIDE):
        backward(late)
    assert torch.equal(original_of(linear).grad, before)


def test_a_backward_pass_through_an_older_value_is_refused() -> None:
    linear = layer()
    with P.cached(linear, deferred=True) as scope:
        late = loss_of(linear(batches()[0]))
        scope.backward()
        with pytest.raises(DeferredGradientError, match=INSIDE):
            backward(late)
        accumulate(linear)  # read after it: right
    assert original_of(linear).grad is not None


def test_the_message_tells_the_path_of_the_tensor() -> None:
    model = two_layers()
    with P.cached(model, deferred=True):
        late = loss_of(model(batches()[0]))
    with pytest.raises(DeferredGradientError, match=r"'2\.weight'|'0\.weight'"):
        backward(late)


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"nonlinear": loss_of, "linear": torch.sum}


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_backward_pass_that_builds_a_graph_is_refused(loss: Callable[[Tensor], Tensor]) -> None:
    linear, message = layer(), r"'weight'.*Write cached\(\.\.\.\) without deferred=True"
    with P.cached(linear, deferred=True):
        with pytest.raises(DeferredGradientError, match=message):
            backward(loss(linear(batches()[0])), create_graph=True)
        linear.zero_grad()
    with P.cached(linear):
        backward(loss(linear(batches()[0])), create_graph=True)
    assert original_of(linear).grad.requires_grad
    linear.zero_grad()  # the gradient holds its own graph


EARLY = r"(?s)'weight'.*or call scope.backward\(\), before anything that reads"


def test_a_step_while_gradients_wait_is_refused() -> None:
    linear = layer()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    before = original_of(linear).detach().clone()
    with P.cached(linear, deferred=True) as scope:
        optimizer.step()  # nothing waits yet
        accumulate(linear)
        with pytest.raises(DeferredGradientError, match=EARLY):
            optimizer.step()
        assert torch.equal(original_of(linear), before)
        scope.backward()
        optimizer.step()
    assert not torch.equal(original_of(linear), before)


EARLY_CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "Optimizer.zero_grad": lambda linear, optimizer, scaler: optimizer.zero_grad(),
    "Module.zero_grad": lambda linear, optimizer, scaler: linear.zero_grad(),
    "unscale_": lambda linear, optimizer, scaler: scaler.unscale_(optimizer),
    "clip_grad_norm_": lambda linear, optimizer, scaler: nn.utils.clip_grad_norm_(
        linear.parameters(), 1e-3
    ),
    "clip_grad_value_": lambda linear, optimizer, scaler: nn.utils.clip_grad_value_(
        linear.parameters(), 1e-3
    ),
}


@pytest.mark.parametrize("call", EARLY_CALLS.values(), ids=EARLY_CALLS)
def test_what_reads_or_clears_gradients_that_wait_is_refused(call: Callable[..., Any]) -> None:
    linear = layer()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    with P.cached(linear, deferred=True) as scope:
        backward(scaler.scale(loss_of(linear(batches()[0]))))
        before = linear.bias.grad.clone()
        with pytest.raises(DeferredGradientError, match=EARLY):
            call(linear, optimizer, scaler)
        assert torch.equal(linear.bias.grad, before)
        scope.backward()
        call(linear, optimizer, scaler)
        assert linear.bias.grad is None or not torch.equal(linear.bias.grad, before)


def test_a_step_through_a_scaler_while_gradients_wait_is_refused() -> None:
    linear = layer()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    with P.cached(linear, deferred=True) as scope:
        backward(scaler.scale(loss_of(linear(batches()[0]))))
        with pytest.raises(DeferredGradientError, match=EARLY):
            scaler.step(optimizer)
        scope.backward()


@pytest.mark.parametrize("which", ["the map's", "another module's"])
def test_a_step_of_other_tensors_that_lead_to_the_value_is_refused(which: str) -> None:
    linear: Any = layer(Shift()) if which == "the map's" else closing_over()
    owned = chain_of(linear)[0].shift if which == "the map's" else linear.other
    optimizer = torch.optim.SGD([owned], lr=0.1)
    with P.cached(linear, deferred=True):
        accumulate(linear)
        with pytest.raises(DeferredGradientError, match=EARLY):
            optimizer.step()


def test_a_step_of_what_a_parametrized_original_is_made_of_is_refused() -> None:
    linear = nested()
    (original,) = originals(linear)
    optimizer = torch.optim.SGD([original], lr=0.1)
    with P.cached(linear, deferred=True):
        accumulate(linear)
        with pytest.raises(DeferredGradientError, match=EARLY):
            optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.SGD])
@pytest.mark.parametrize("settles", [False, True])
def test_a_closure_that_leaves_gradients_waiting_is_refused(kind: Any, settles: bool) -> None:
    linear = layer()
    optimizer = kind([original_of(linear)], lr=1e-3)
    before = original_of(linear).detach().clone()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(linear(batches()[0]))
        backward(loss)
        if settles:
            scope.backward()
        return loss

    with P.cached(linear, deferred=True) as scope:
        with nullcontext() if settles else pytest.raises(DeferredGradientError, match=EARLY):
            optimizer.step(closure)
        assert torch.equal(original_of(linear), before) is not settles


def test_a_step_of_an_optimizer_without_these_parameters_is_allowed() -> None:
    linear, other = layer(), layer()
    optimizer = torch.optim.SGD([*other.parameters(), linear.bias], lr=0.1)
    before = original_of(other).detach().clone()
    with P.cached(linear, deferred=True):
        accumulate(linear)
        accumulate(other)
        optimizer.step()
    assert not torch.equal(original_of(other), before)


def test_backward_on_a_scope_that_defers_nothing_is_refused() -> None:
    linear = layer()
    with P.cached(linear) as scope:
        accumulate(linear)
        with pytest.raises(DeferredGradientError, match=r"write cached\(\.\.\., deferred=True\)"):
            scope.backward()
    assert issubclass(DeferredGradientError, RuntimeError)
