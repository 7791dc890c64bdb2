"""`auto_cache` in training: one evaluation in each forward pass, and the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import paramdesc as P
from tests.caching.auto_cache.models import (
    INPUT,
    Twice,
    assert_same,
    gradients,
    original_of,
    plain,
    twice,
)
from tests.helpers import Exp


class Recursive(Twice):
    """Calls itself, to a depth."""

    depth = 0

    def pause(self) -> None:
        if self.depth < 3:
            self.depth += 1
            self(INPUT)


class Checkpointed(Twice):
    """Each use of the layer in a region that runs twice."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = checkpoint(self.layer, x, use_reentrant=False).tanh()
        return x


# training


@pytest.mark.parametrize("training", [True, False])
def test_with_gradients_each_forward_pass_evaluates_once(training: bool) -> None:
    model = twice().train(training)
    outputs = [model(INPUT) for _ in range(3)]
    assert Exp.evaluations == 3
    assert all(output.requires_grad for output in outputs)
    model.layer(INPUT)  # a call of a part is no forward pass
    assert Exp.evaluations == 4


def test_training_mode_without_gradients_evaluates_once_in_a_pass() -> None:
    model = twice()
    with torch.no_grad():
        for _ in range(3):
            model(INPUT)
    assert Exp.evaluations == 3


def test_gradients_are_those_without_the_setting() -> None:
    assert_same(twice())
    assert_same(twice().eval())


def test_two_forward_passes_and_then_two_backward_passes() -> None:
    model = twice()
    twin = plain(model)
    for each in (model, twin):
        outputs = [each(INPUT), each(INPUT + 1)]
        for output in reversed(outputs):
            output.square().sum().backward()
    for ours, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad)


def test_a_backward_pass_inside_of_the_forward_pass() -> None:
    class Inner(Twice):
        def forward(self, x: Tensor) -> Tensor:
            first: Tensor = self.layer(x)
            torch.autograd.backward(first.square().sum())
            y: Tensor = self.layer(x)
            return y

    model = twice(Inner)
    expected = plain(model)
    model(INPUT).square().sum().backward()
    expected(INPUT).square().sum().backward()
    torch.testing.assert_close(original_of(model).grad, original_of(expected).grad)


def test_a_recursive_model_evaluates_once_in_its_outermost_call() -> None:
    model = twice(Recursive)
    output = model(INPUT)
    assert Exp.evaluations == 1
    twin = plain(twice())
    torch.testing.assert_close(gradients(model, output), gradients(twin, twin(INPUT)))


def test_parts_that_have_the_setting_too_share_the_pass_of_the_whole() -> None:
    model = twice()
    P.auto_cache(model.layer)
    model(INPUT)
    assert Exp.evaluations == 1
    model.layer(INPUT)
    assert Exp.evaluations == 2
    P.auto_cache(model, enabled=False)
    model(INPUT)
    assert Exp.evaluations == 4


def test_a_scope_around_the_calls_takes_the_values() -> None:
    model = twice()
    with P.cached():
        model(INPUT)
        model(INPUT)
    assert Exp.evaluations == 1


def test_deferred_gradients_around_the_calls_are_right() -> None:
    model = twice()
    twin = plain(model)
    with P.cached(deferred=True):
        for k in range(3):
            model(INPUT + k).sum().backward()
    assert Exp.evaluations == 1
    for k in range(3):
        twin(INPUT + k).sum().backward()
    torch.testing.assert_close(original_of(model).grad, original_of(twin).grad)


# checkpoints


def test_checkpoints_inside_of_the_model() -> None:
    model = twice(Checkpointed)
    assert_same(model)
    for _ in range(2):
        assert_same(model.eval())


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_checkpoint_around_the_model(use_reentrant: bool) -> None:
    model = twice()
    twin = plain(model)
    inputs = INPUT.clone().requires_grad_()
    for each in (model, twin):
        for _ in range(2):
            checkpoint(each, inputs, use_reentrant=use_reentrant).square().sum().backward()
    for ours, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad)
