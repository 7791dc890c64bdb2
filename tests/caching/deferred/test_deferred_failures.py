"""After an error in the middle, all gradients are there or none."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.errors import DeferredGradientError
from tests.caching.deferred.comparing import assert_close
from tests.caching.deferred.loops import INSIDE, accumulate, backward, batches, loss_of
from tests.caching.deferred.models import Product, layer, originals, two_layers
from tests.helpers import Exp, Shift, original_of


class Failing(torch.autograd.Function):
    """The identity, whose backward pass raises."""

    @staticmethod
    def forward(*inputs: Any) -> Any:
        return inputs[1].clone()

    @staticmethod
    def backward(*inputs: Any) -> Any:
        raise ArithmeticError(f"no gradient for {len(inputs) - 1} output")


class Fails(nn.Module):
    def forward(self, X: Tensor) -> Any:
        return Failing.apply(X)  # type: ignore[no-untyped-call]


def one_that_fails(at: int) -> Any:
    """Three layers; the map of one has no backward pass. Some originals have a gradient."""
    maps: list[list[nn.Module]] = [[Product()], [Shift()], [Exp()]]
    maps[at].append(Fails())
    model = nn.Sequential(*(layer(*each) for each in maps))
    for number, original in enumerate(originals(model)):
        original.grad = torch.rand_like(original) if number % 2 else None
    return model


def states(model: Any) -> list[Any]:
    """Each `.grad` of the originals and of the maps' own parameters, and a copy of it."""
    gradients = [x.grad for x in originals(model)]
    return [(x, None if x is None else x.clone()) for x in gradients]


def assert_unchanged(model: Any, before: list[Any]) -> None:
    for original, (gradient, copy) in zip(originals(model), before, strict=True):
        assert original.grad is gradient
        assert gradient is None or torch.equal(gradient, copy)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("at_exit", [False, True], ids=["backward()", "at the end"])
def test_a_map_whose_backward_pass_raises_changes_no_gradient(at: int, at_exit: bool) -> None:
    model = one_that_fails(at)
    before = states(model)
    with pytest.raises(ArithmeticError, match="no gradient"):  # noqa: PT012, SIM117
        with P.cached(model, deferred=True) as scope:
            accumulate(model)
            if not at_exit:
                scope.backward()
    assert_unchanged(model, before)


def test_a_scope_goes_on_after_a_failed_backward_pass() -> None:
    model = nn.Sequential(layer(), layer(Fails()))
    with P.cached(model, deferred=True) as scope:
        accumulate(model)
        with pytest.raises(ArithmeticError):
            scope.backward()
        before = states(model)
        accumulate(model[0])
    assert [gradient for gradient, _ in before] == [None, None]
    expected = layer()
    expected.load_state_dict(model[0].state_dict())
    accumulate(expected)
    assert_close(original_of(model[0]).grad, original_of(expected).grad)


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt])
def test_an_exception_in_the_body_changes_no_gradient_and_tells_so(
    kind: type[BaseException],
) -> None:
    model = two_layers()
    for original in originals(model)[:1]:
        original.grad = torch.ones_like(original)
    before = states(model)
    with pytest.raises(kind) as caught, P.cached(model, deferred=True):  # noqa: PT012
        accumulate(model)
        raise kind
    assert_unchanged(model, before)
    if sys.version_info >= (3, 11):
        (note,) = caught.value.__notes__
        assert "'0.weight', '2.weight'" in note
        assert ".grad is unchanged" in note


def test_an_exception_while_nothing_waits_gets_no_note() -> None:
    linear = layer()
    with pytest.raises(KeyError) as caught, P.cached(linear, deferred=True) as scope:  # noqa: PT012
        accumulate(linear)
        scope.backward()
        raise KeyError
    assert not hasattr(caught.value, "__notes__")
    assert original_of(linear).grad is not None


def test_gradients_after_an_exception_are_refused() -> None:
    linear, late = layer(), list[Tensor]()
    with pytest.raises(KeyError), P.cached(linear, deferred=True):  # noqa: PT012
        late.append(loss_of(linear(batches()[0])))
        raise KeyError
    with pytest.raises(DeferredGradientError, match=INSIDE):
        backward(late[0])
